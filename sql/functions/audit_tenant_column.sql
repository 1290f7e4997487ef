-- The column that says whose a row is; NULL where the table belongs to no tenant. The list of tenants has its own id.
CREATE OR REPLACE FUNCTION evosense_ops.audit_tenant_column(p_table regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.attname::text
    FROM pg_attribute a
    WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'uuid'::regtype
        AND a.attname IN ('tenant_id', 'id')
    ORDER BY a.attname = 'tenant_id' DESC
    LIMIT 1
$$;
