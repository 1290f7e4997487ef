-- The tenant's messages that mean most nearly what the query vector means, best first: of one model's vectors, and of
-- messages that pass the filters (matching_messages). p_except: a message that is no hit, the one that asks.
--
-- Two steps, because the vectors that are fast to search (messages_embedding: half precision, indexed) are not the
-- documented ones (messages_message.embedding), from which score and order come:
--   1. candidates, a few more than asked for, so that the order at the end of the list does not depend on rounding;
--   2. their rows, scored, cut at the threshold, ordered, cut at the limit.
-- The threshold stays out of step 1: inside, an iterative index scan reads on and on for rows that do not exist.
--
-- Exact wherever that is cheap: at most `exact_up_to` vectors of the model or messages that pass, or a wish for more
-- than `exact_from_limit` hits (an index scan of that depth would stop early without a word), are compared one by one.
-- With filters the index is asked for more and more until enough pass, up to `reach_up_to`; then, and where the index ran
-- dry before it had the candidates that are known to be there, everything is compared.
--
-- p_limit NULL: all hits, as LIMIT NULL; 0 or less: none. NULL for any of the first three or the threshold: no rows.
-- The settings are part of the design (DESIGN section 6): a generic plan would lose the index after five calls.
-- matching_messages without a schema: in the copy that a replay makes it is the replay's own.
CREATE OR REPLACE FUNCTION evosense.nearest_messages(
    p_tenant_id uuid,
    p_query_embedding vector(768),
    p_model text,
    p_limit integer DEFAULT 20,
    p_similarity_threshold float DEFAULT 0.7,
    p_except bigint DEFAULT NULL,
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
    similarity_score float,
    created_at timestamptz
)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET hnsw.ef_search = 100
SET hnsw.iterative_scan = relaxed_order
SET hnsw.max_scan_tuples = 50000
AS $$
#variable_conflict use_column
DECLARE
    exact_up_to CONSTANT integer := 5000;
    exact_from_limit CONSTANT integer := 200;
    reach_up_to CONSTANT bigint := 3200;
    -- bigint: a limit near the largest integer must not overflow.
    wanted bigint := p_limit::bigint + 20 + (p_except IS NOT NULL)::integer;
    query halfvec(768) := p_query_embedding::halfvec(768);
    filtered boolean := num_nonnulls(p_since, p_until, p_chat_id, p_connection_id, p_sentiment_min, p_sentiment_max,
                                     p_emotion, p_author) > 0;
    exact boolean := wanted IS NULL OR p_limit > exact_from_limit;
    reach bigint := wanted * CASE WHEN filtered THEN 5 ELSE 1 END;
    passing bigint[];
    nearest bigint[];
    candidates bigint[];
BEGIN
    IF p_tenant_id IS NULL OR p_query_embedding IS NULL OR p_model IS NULL OR p_similarity_threshold IS NULL
        OR p_limit <= 0
    THEN
        RETURN;
    END IF;

    IF filtered THEN
        SELECT array_agg(few.id) INTO passing
        FROM (
            SELECT m.id
            FROM matching_messages(p_tenant_id, NULL, p_since, p_until, p_chat_id, p_connection_id, p_sentiment_min,
                                   p_sentiment_max, p_emotion, p_author) m
            LIMIT CASE WHEN NOT exact THEN exact_up_to + 1 END
        ) few;
        exact := exact OR coalesce(cardinality(passing), 0) <= exact_up_to;
    END IF;

    IF NOT exact THEN
        SELECT count(*) <= exact_up_to INTO exact
        FROM (
            SELECT FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id AND e.model = p_model
            LIMIT exact_up_to + 1
        ) probe;
        -- Those that pass were not all read: too many.
        passing := NULL;
    END IF;

    WHILE NOT exact LOOP
        SELECT array_agg(found.message_id ORDER BY found.distance) INTO nearest
        FROM (
            SELECT e.message_id, e.embedding <=> query AS distance
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id AND e.model = p_model
            ORDER BY e.embedding <=> query
            LIMIT reach
        ) found;
        candidates := nearest;
        IF filtered THEN
            SELECT array_agg(found.id) INTO candidates
            FROM (
                SELECT n.id
                FROM unnest(nearest) WITH ORDINALITY AS n(id, place)
                JOIN matching_messages(p_tenant_id, nearest, p_since, p_until, p_chat_id, p_connection_id,
                                       p_sentiment_min, p_sentiment_max, p_emotion, p_author) m USING (id)
                ORDER BY n.place
                LIMIT wanted
            ) found;
        END IF;
        EXIT WHEN cardinality(candidates) >= wanted;
        exact := coalesce(cardinality(nearest), 0) < reach OR reach >= reach_up_to OR NOT filtered;
        reach := least(reach * 4, reach_up_to);
    END LOOP;

    IF exact AND filtered AND passing IS NULL THEN
        SELECT array_agg(m.id) INTO passing
        FROM matching_messages(p_tenant_id, NULL, p_since, p_until, p_chat_id, p_connection_id, p_sentiment_min,
                               p_sentiment_max, p_emotion, p_author) m;
    END IF;

    IF exact THEN
        SELECT array_agg(found.message_id) INTO candidates
        FROM (
            SELECT e.message_id
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id AND e.model = p_model
                AND (NOT filtered OR e.message_id = ANY (passing))
            ORDER BY (e.embedding <=> query) + 0 -- no index can give this order
            LIMIT wanted
        ) found;
    END IF;

    RETURN QUERY
    SELECT hit.id, hit.text, hit.sentiment, hit.satisfaction, hit.score, hit.created_at
    FROM (
        SELECT m.id, m.text, m.sentiment, m.satisfaction, m.created_at,
               -- The documented column holds the vector that came last, which may be another model's (docs/adr/0029).
               1 - (CASE WHEN m.embedding::halfvec(768) = e.embedding THEN m.embedding ELSE e.embedding::vector(768) END
                    <=> p_query_embedding) AS score
        FROM evosense.messages_message m
        JOIN evosense.messages_embedding e
            ON e.tenant_id = p_tenant_id AND e.model = p_model AND e.message_id = m.id
        WHERE m.id = ANY (candidates) AND m.tenant_id = p_tenant_id AND m.embedding IS NOT NULL
            AND m.id IS DISTINCT FROM p_except
        OFFSET 0 -- the distance is computed once a row
    ) hit
    -- A vector of length 0 means nothing: its score is NaN, which PostgreSQL holds greater than any threshold.
    WHERE hit.score >= p_similarity_threshold AND hit.score <> 'NaN'
    ORDER BY hit.score DESC, hit.id
    LIMIT p_limit;
END
$$;
