-- Foreign keys between these live tables and other live ones: what a swap has to cut and to tie again.
-- `outgoing`: from one of these tables to another one.
CREATE OR REPLACE FUNCTION evosense_ops.build_boundary_keys(p_tables text[])
RETURNS TABLE (table_name text, other_name text, name text, definition text, outgoing boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH ours AS (
        SELECT r.relation FROM evosense_ops.build_relations(p_tables) r
    )
    SELECT c.relname::text, f.relname::text, k.conname::text,
        -- A key of a partitioned table can't be left unchecked before PostgreSQL 18.
        replace(pg_get_constraintdef(k.oid), ' NOT VALID', '') || CASE c.relkind WHEN 'r' THEN ' NOT VALID' ELSE '' END,
        k.conrelid IN (SELECT o.relation FROM ours o)
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND k.conparentid = 0
        AND (k.conrelid IN (SELECT o.relation FROM ours o)) <> (k.confrelid IN (SELECT o.relation FROM ours o))
    ORDER BY c.relname, k.conname
$$;
