-- Foreign keys of or to these live tables that a swap has left unchecked.
CREATE OR REPLACE FUNCTION evosense_ops.build_unvalidated(p_tables text[])
RETURNS TABLE (table_name text, name text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.relname::text, k.conname::text
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND NOT k.convalidated AND k.conparentid = 0
        AND c.relnamespace = 'evosense'::regnamespace
        AND (c.relname = ANY (p_tables) OR f.relname = ANY (p_tables))
    ORDER BY c.relname, k.conname
$$;
