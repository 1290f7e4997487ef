-- The tenant's messages that mean most nearly what the query vector means, best first: documented signature, columns
-- and order, over nearest_messages(), which says how it searches and what NULL means.
--
-- The signature does not say which model the query vector is of, and vectors of two models are never compared: it is
-- taken to be of the model that most of the tenant's vectors are of (docs/adr/0027). Who knows the model says it, to
-- nearest_messages().
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
SET plan_cache_mode = force_generic_plan -- nothing here needs a plan of its own
AS $$
#variable_conflict use_column
DECLARE
    query vector(768) := p_query_embedding::vector(768);
    prevailing text;
    other text;
BEGIN
    -- The first and the last of the index: nearly always the same one. Two while a tenant moves.
    SELECT min(e.model), max(e.model) INTO prevailing, other
    FROM evosense.messages_embedding e
    WHERE e.tenant_id = p_tenant_id;

    IF prevailing <> other THEN
        SELECT e.model INTO prevailing
        FROM evosense.messages_embedding e
        WHERE e.tenant_id = p_tenant_id
        GROUP BY e.model
        ORDER BY count(*) DESC, e.model
        LIMIT 1;
    END IF;

    RETURN QUERY
    SELECT hit.message_id, hit.text, hit.sentiment, hit.satisfaction, hit.similarity_score, hit.created_at
    FROM nearest_messages(p_tenant_id, query, prevailing, p_limit, p_similarity_threshold) hit
    ORDER BY hit.similarity_score DESC, hit.message_id;
END
$$;
