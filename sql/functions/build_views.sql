-- Our views that read these tables directly, as statements that make each again with what it had. A view over such a
-- view needs nothing: CREATE OR REPLACE leaves the inner one what it was to it.
CREATE OR REPLACE FUNCTION evosense_ops.build_views(p_tables text[])
RETURNS TABLE (view_name text, definition text, options text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.relname::text, pg_get_viewdef(c.oid),
        coalesce(' WITH (' || evosense_ops.build_options_text(c.reloptions) || ')', '')
    FROM pg_class c
    WHERE c.relkind = 'v' AND c.relnamespace = 'evosense'::regnamespace
        AND EXISTS (
            SELECT
            FROM pg_rewrite w
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
            WHERE w.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass
                AND d.refobjid IN (SELECT r.relation FROM evosense_ops.build_relations(p_tables) r)
        )
    ORDER BY c.relname
$$;
