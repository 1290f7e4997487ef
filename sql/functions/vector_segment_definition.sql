-- The statement that makes the HNSW index of one stretch of a tenant's vectors, beside running writes. It cannot be
-- carried out in here: CREATE INDEX CONCURRENTLY runs in no function.
CREATE OR REPLACE FUNCTION evosense_ops.vector_segment_definition(
    p_index_name text, p_tenant_id uuid, p_model text, p_after_id bigint, p_upto_id bigint
) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'CREATE INDEX CONCURRENTLY %I ON %s USING hnsw (embedding public.halfvec_cosine_ops) '
        'WHERE tenant_id = %L AND model = %L AND message_id > %s AND message_id <= %s',
        p_index_name, e.tableoid::regclass, p_tenant_id, p_model, p_after_id, p_upto_id
    )
    FROM evosense.messages_embedding e
    WHERE e.tenant_id = p_tenant_id
    LIMIT 1
$$;
