-- A step of build_swap: nobody reads or writes from here on. Views come first, as for whoever reads through them; each
-- is locked by a change that changes nothing, because LOCK TABLE would lock all that they read. Then every table that
-- is moved or loses a foreign key, in one order.
CREATE OR REPLACE FUNCTION evosense_ops.build_lock(p_schema text, p_tables text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY
        ARRAY(
            SELECT format('ALTER VIEW evosense.%I OWNER TO CURRENT_USER', v.view_name)
            FROM evosense_ops.build_views(p_tables) v
        )
        || (
            SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', string_agg(t.name, ', ' ORDER BY t.place, t.name))
            FROM (
                SELECT 1 AS place, format('ONLY evosense.%I', r.name) AS name
                FROM evosense_ops.build_relations(p_tables) r
                UNION
                SELECT 1, format('ONLY evosense.%I', n.name)
                FROM evosense_ops.build_boundary_keys(p_tables) k
                CROSS JOIN LATERAL (VALUES (k.table_name), (k.other_name)) AS n(name)
                UNION
                SELECT 2, format('ONLY %I.%I', p_schema, r.name)
                FROM evosense_ops.build_relations(p_tables) r
            ) t
        )
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
