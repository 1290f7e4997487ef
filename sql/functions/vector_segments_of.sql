-- The stretches of a tenant's vectors of one model that have an HNSW index which can be used, in order; no two overlap.
-- In the copy that a replay makes, the indexes of the replay's own table.
CREATE OR REPLACE FUNCTION evosense.vector_segments_of(p_tenant_id uuid, p_model text)
RETURNS TABLE (after_id bigint, upto_id bigint)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan -- planning these joins anew would take longer than the search
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.after_id, s.upto_id
    FROM evosense_ops.vector_segments s
    JOIN pg_catalog.pg_class c ON c.relname = s.index_name
    JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid AND x.indisvalid
    JOIN pg_catalog.pg_inherits h ON h.inhrelid = x.indrelid
        AND h.inhparent = 'evosense.messages_embedding'::pg_catalog.regclass
    WHERE s.tenant_id = p_tenant_id AND s.model = p_model
    ORDER BY s.after_id;
END
$$;
