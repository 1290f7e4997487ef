-- The tenant's messages that mean most nearly what the query vector means, best first.
--
-- Two steps, because the vectors that are fast to search (messages_embedding: half precision, indexed) are not the
-- documented ones (messages_message.embedding), from which score and order come:
--   1. candidates, a few more than asked for, so that the order at the end of the list does not depend on rounding;
--   2. their rows, scored, cut at the threshold, ordered, cut at the limit.
-- The threshold stays out of step 1: inside, an iterative index scan reads on and on for rows that do not exist.
--
-- Exact wherever that is cheap: a tenant of at most `exact_up_to` vectors, or a wish for more than `exact_from_limit`
-- hits (an index scan of that depth would stop early without a word), is compared with every vector. So it is, too,
-- when the index ran dry before it had the candidates that are known to be there.
--
-- p_limit NULL: all hits, as LIMIT NULL; 0 or less: none. NULL for any other argument: no rows.
-- The settings are part of the design (DESIGN section 6): a generic plan would lose the index after five calls.
CREATE OR REPLACE FUNCTION evosense.semantic_search(
    p_tenant_id UUID,
    p_query_embedding vector(768),
    p_limit INTEGER DEFAULT 20,
    p_similarity_threshold FLOAT DEFAULT 0.7
)
RETURNS TABLE (
    message_id BIGINT,
    text TEXT,
    sentiment FLOAT,
    satisfaction INTEGER,
    similarity_score FLOAT,
    created_at TIMESTAMP WITH TIME ZONE
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
    exact_up_to CONSTANT bigint := 5000;
    exact_from_limit CONSTANT bigint := 200;
    -- bigint: a limit near the largest integer must not overflow.
    wanted bigint := p_limit::bigint + 20;
    query halfvec(768) := p_query_embedding::halfvec(768);
    candidates bigint[];
    exact boolean := wanted IS NULL OR p_limit > exact_from_limit;
BEGIN
    IF p_tenant_id IS NULL OR p_query_embedding IS NULL OR p_similarity_threshold IS NULL OR p_limit <= 0 THEN
        RETURN;
    END IF;

    IF NOT exact THEN
        SELECT count(*) <= exact_up_to INTO exact
        FROM (
            SELECT FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id
            LIMIT exact_up_to + 1
        ) probe;
    END IF;

    IF NOT exact THEN
        SELECT array_agg(nearest.message_id) INTO candidates
        FROM (
            SELECT e.message_id
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id
            ORDER BY e.embedding <=> query
            LIMIT wanted
        ) nearest;
        exact := coalesce(cardinality(candidates), 0) < wanted;
    END IF;

    IF exact THEN
        SELECT array_agg(nearest.message_id) INTO candidates
        FROM (
            SELECT e.message_id
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id
            ORDER BY (e.embedding <=> query) + 0 -- no index can give this order
            LIMIT wanted
        ) nearest;
    END IF;

    RETURN QUERY
    SELECT hit.id, hit.text, hit.sentiment, hit.satisfaction, hit.score, hit.created_at
    FROM (
        SELECT m.id, m.text, m.sentiment, m.satisfaction, m.created_at,
               1 - (m.embedding <=> p_query_embedding) AS score
        FROM evosense.messages_message m
        WHERE m.id = ANY (candidates) AND m.tenant_id = p_tenant_id AND m.embedding IS NOT NULL
        OFFSET 0 -- the distance is computed once a row
    ) hit
    -- A vector of length 0 means nothing: its score is NaN, which PostgreSQL holds greater than any threshold.
    WHERE hit.score >= p_similarity_threshold AND hit.score <> 'NaN'
    ORDER BY hit.score DESC, hit.id
    LIMIT p_limit;
END
$$;
