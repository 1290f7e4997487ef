-- Messages of the session's tenant in which the words are found, best first, newest first among equals.
--
-- SECURITY DEFINER, because `@@` is not leak-proof: under the policy of evosense_app PostgreSQL computes it for every
-- row of the tenant and never asks the index (docs/adr/0026). What keeps tenants apart here:
--   * the tenant is that of the session setting, as in the policies, and nothing that is passed has any part in it;
--     without a setting there are no rows;
--   * the statement is fixed text; nobody's schema is on the search_path, and pg_temp is searched for tables alone and
--     last, so that no function, operator or table of a caller gets in;
--   * what is passed is only compared; a row of another tenant may be looked at, when the index gives it and its words
--     are computed again: that raises nothing, since they were computed for the index, and notices are turned off.
-- Its owner sees all rows by its policies (owner_cleanup) and is nobody who logs in.
--
-- Of more matches than `ranked_at_most` the newest are ranked: a rank costs the words of a message to be found again.
-- rank: ts_rank_cd, comparable within one answer. snippet and highlights: search_snippet(). A filter that is NULL lets
-- all pass; p_author is 'customer' or 'company'. p_limit NULL: as many as are ranked; 0 or less: none.
CREATE OR REPLACE FUNCTION evosense.text_search(
    p_query text,
    p_limit integer DEFAULT 20,
    p_since timestamptz DEFAULT NULL,
    p_until timestamptz DEFAULT NULL,
    p_chat_id text DEFAULT NULL,
    p_connection_id bigint DEFAULT NULL,
    p_sentiment_min float DEFAULT NULL,
    p_sentiment_max float DEFAULT NULL,
    p_emotion text DEFAULT NULL,
    p_author text DEFAULT NULL
)
RETURNS TABLE (
    message_id bigint,
    text text,
    sentiment float,
    satisfaction integer,
    rank float,
    created_at timestamptz,
    snippet text,
    highlights integer[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
    ranked_at_most CONSTANT integer := 1000;
    tenant uuid := nullif(current_setting('evosense.tenant_id', true), '')::uuid;
    query tsquery := evosense.search_query(p_query);
BEGIN
    IF tenant IS NULL OR query IS NULL OR p_limit <= 0 THEN
        RETURN;
    END IF;

    RETURN QUERY
    -- Materialized and without an order: else an index that gives the order could be read to its end for a rare word.
    WITH matching AS MATERIALIZED (
        SELECT m.id, m.created_at
        FROM evosense.messages_message m
        WHERE m.tenant_id = tenant AND evosense.search_words(m.text) @@ query
            AND (p_since IS NULL OR m.created_at >= p_since)
            AND (p_until IS NULL OR m.created_at < p_until)
            AND (p_chat_id IS NULL OR m.chat_id = p_chat_id)
            AND (p_connection_id IS NULL OR m.connection_id = p_connection_id)
            AND (p_sentiment_min IS NULL OR m.sentiment >= p_sentiment_min)
            AND (p_sentiment_max IS NULL OR m.sentiment <= p_sentiment_max)
            AND (p_emotion IS NULL OR m.emotion = p_emotion)
            AND (p_author IS NULL OR p_author = CASE WHEN EXISTS (
                SELECT FROM evosense.connections_companysender c
                WHERE c.connection_id = m.connection_id AND c.sender = m.sender
            ) THEN 'company' ELSE 'customer' END)
    ), newest AS (
        SELECT matching.id FROM matching ORDER BY matching.created_at DESC, matching.id DESC LIMIT ranked_at_most
    ), best AS (
        SELECT m.*, ts_rank_cd(evosense.search_words(m.text), query)::float AS score
        FROM newest
        JOIN evosense.messages_message m ON m.id = newest.id AND m.tenant_id = tenant
        ORDER BY score DESC, m.created_at DESC, m.id DESC
        LIMIT p_limit
    )
    SELECT b.id, b.text, b.sentiment, b.satisfaction, b.score, b.created_at, s.snippet, s.highlights
    FROM best b
    CROSS JOIN LATERAL evosense.search_snippet(b.text, query) s
    ORDER BY b.score DESC, b.created_at DESC, b.id DESC;
END
$$;
