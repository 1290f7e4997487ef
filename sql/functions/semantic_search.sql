-- The tenant's messages that mean most nearly what the query vector means, best first: documented signature, columns
-- and order, over nearest_messages(), which says how it searches and what NULL means.
--
-- The signature does not say which model the query vector is of, and vectors of two models are never compared: it is
-- taken to be of the model that answers for the tenant, see embedding_model(). Who knows the model says it, to
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
BEGIN
    -- Both functions read evosense.messages_embedding; build_publish() looks for it here.
    RETURN QUERY
    SELECT hit.message_id, hit.text, hit.sentiment, hit.satisfaction, hit.similarity_score, hit.created_at
    FROM nearest_messages(p_tenant_id, query, embedding_model(p_tenant_id), p_limit, p_similarity_threshold) hit
    ORDER BY hit.similarity_score DESC, hit.message_id;
END
$$;
