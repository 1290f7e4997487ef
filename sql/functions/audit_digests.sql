-- A digest of the rows of each tenant in one table of a schema, live or built: their number, and a sum of the hashes of
-- their texts that does not depend on their order. Two different tables have the same digest with a chance of one in
-- 2^64 for each tenant; who changes rows on purpose and knows the function can do better than chance.
CREATE OR REPLACE FUNCTION evosense_ops.audit_digests(p_schema text, p_table text, p_tenant_id uuid)
RETURNS TABLE (tenant_id uuid, rows bigint, digest numeric)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant_column text := evosense_ops.audit_tenant_column(format('evosense.%I', p_table)::regclass);
BEGIN
    RETURN QUERY EXECUTE format(
        $query$
        SELECT %1$s, count(*), sum(hashtextextended(t::text, 0)::numeric)
        FROM %2$I.%3$I AS t
        WHERE %4$s
        GROUP BY 1
        $query$,
        CASE WHEN tenant_column IS NULL THEN 'NULL::uuid' ELSE format('t.%I', tenant_column) END, p_schema, p_table,
        CASE
            WHEN p_tenant_id IS NULL THEN 'true'
            WHEN tenant_column IS NULL THEN 'false'
            ELSE format('t.%I = %L', tenant_column, p_tenant_id)
        END
    );
END
$$;
