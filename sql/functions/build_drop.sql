-- Drops a build: its tables, what was published over them, its schema and its row. Also where only the row is left.
-- Raises dependent_objects_still_exist, and names it, where anything of somebody else's hangs on the schema: nothing is
-- dropped along.
CREATE OR REPLACE FUNCTION evosense_ops.build_drop(p_schema text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    space oid := to_regnamespace(p_schema);
    detail text;
    one record;
BEGIN
    -- Each kind in one statement, without CASCADE: what is named together may depend on one another.
    FOR one IN
        SELECT 1 AS step, format('DROP FUNCTION %s', string_agg(p.oid::regprocedure::text, ', ')) AS statement
        FROM pg_proc p WHERE p.pronamespace = space HAVING count(*) > 0
        UNION ALL
        SELECT 2, format('DROP VIEW %s', string_agg(c.oid::regclass::text, ', '))
        FROM pg_class c WHERE c.relnamespace = space AND c.relkind = 'v' HAVING count(*) > 0
        UNION ALL
        SELECT 3, format('DROP TABLE %s', string_agg(c.oid::regclass::text, ', '))
        FROM pg_class c
        WHERE c.relnamespace = space AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        HAVING count(*) > 0
        UNION ALL
        SELECT 4, format('DROP SCHEMA %I', p_schema) WHERE space IS NOT NULL
        ORDER BY step
    LOOP
        EXECUTE one.statement;
    END LOOP;
    DELETE FROM evosense_ops.builds WHERE id = build.id;
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
        RAISE EXCEPTION 'schema % was not dropped, because others depend on it: %',
            p_schema, replace(detail, E'\n', '; ')
            USING ERRCODE = 'dependent_objects_still_exist';
END
$$;
