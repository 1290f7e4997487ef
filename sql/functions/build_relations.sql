-- The live relations behind these tables: the tables themselves (depth 0) and their partitions, parents first.
-- Raises undefined_table for what is not a table of schema evosense, or is only a partition of one.
CREATE OR REPLACE FUNCTION evosense_ops.build_relations(p_tables text[])
RETURNS TABLE (relation oid, name text, kind "char", top text, depth integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(coalesce(quote_ident(t.table_name), 'NULL'), ', ') INTO wrong
    FROM unnest(p_tables) AS t(table_name)
    WHERE NOT EXISTS (
        SELECT
        FROM pg_class c
        WHERE c.relnamespace = 'evosense'::regnamespace AND c.relname = t.table_name
            AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            -- Definitions are carried over as text (build_rehomed).
            AND c.relname ~ '^[a-z_][a-z0-9_]*$'
    );
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'no tables of schema evosense that can be built: %', wrong USING ERRCODE = 'undefined_table';
    END IF;

    RETURN QUERY
    SELECT m.oid, m.relname::text, m.relkind, c.relname::text, coalesce(p.level, 0)
    FROM pg_class c
    -- No rows for a table that has no partitions.
    LEFT JOIN LATERAL pg_partition_tree(c.oid) p ON c.relkind = 'p'
    JOIN pg_class m ON m.oid = coalesce(p.relid::oid, c.oid)
    WHERE c.relnamespace = 'evosense'::regnamespace AND c.relname = ANY (p_tables)
    ORDER BY c.relname, coalesce(p.level, 0), m.relname;
END
$$;
