-- The stretches of a tenant's vectors of one model that have an HNSW index which can be used, in order. Where two
-- overlap, as when small ones were just made into a big one, the bigger one alone.
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
        AND NOT EXISTS (
            SELECT
            FROM evosense_ops.vector_segments o
            JOIN pg_catalog.pg_class oc ON oc.relname = o.index_name
            JOIN pg_catalog.pg_index ox ON ox.indexrelid = oc.oid AND ox.indisvalid
            JOIN pg_catalog.pg_inherits oh ON oh.inhrelid = ox.indrelid
                AND oh.inhparent = 'evosense.messages_embedding'::pg_catalog.regclass
            WHERE o.tenant_id = s.tenant_id AND o.model = s.model AND o.id > s.id
                AND o.after_id <= s.after_id AND o.upto_id >= s.upto_id
        )
    ORDER BY s.after_id;
END
$$;
