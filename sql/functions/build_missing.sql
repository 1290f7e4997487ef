-- What the live tables have and those of a build have not yet, in the order in which it should be made. The catalogue
-- says it and no list: what a later migration adds is found here as well. p_kind: only that kind, which is quicker.
CREATE OR REPLACE FUNCTION evosense_ops.build_missing(p_schema text, p_kind text DEFAULT NULL)
RETURNS TABLE (kind text, table_name text, name text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    names text[] := ARRAY(SELECT r.name FROM evosense_ops.build_relations(build.tables) r);
BEGIN
    RETURN QUERY
    WITH pairs AS (
        SELECT p.* FROM evosense_ops.build_pairs(p_schema, build.tables) p
    ), missing (step, kind, table_name, name) AS (
        -- The index of a partitioned table makes those of its partitions.
        SELECT 1, 'index', p.name, i.relname::text
        FROM pairs p
        JOIN pg_index x ON x.indrelid = p.live AND NOT x.indisunique
        JOIN pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
        WHERE coalesce(p_kind, 'index') = 'index'
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype = 'x')
            AND NOT EXISTS (
                SELECT
                FROM pg_index y
                JOIN pg_class j ON j.oid = y.indexrelid
                WHERE y.indrelid = p.built AND y.indisvalid AND j.relname = i.relname
            )
        UNION ALL
        -- Keys to tables that are not in the build are made by the swap.
        SELECT 2, 'foreign key', p.name, k.conname::text
        FROM pairs p
        JOIN pg_constraint k ON k.conrelid = p.live AND k.contype = 'f' AND k.conparentid = 0
        WHERE coalesce(p_kind, 'foreign key') = 'foreign key'
            AND k.confrelid IN (SELECT other.live FROM pairs other)
            AND NOT EXISTS (
                SELECT FROM pg_constraint b WHERE b.conrelid = p.built AND b.contype = 'f' AND b.conname = k.conname
            )
        UNION ALL
        SELECT 3, 'trigger', p.name, t.tgname::text
        FROM pairs p
        JOIN pg_trigger t ON t.tgrelid = p.live AND NOT t.tgisinternal AND t.tgparentid = 0
        WHERE coalesce(p_kind, 'trigger') = 'trigger'
            AND NOT EXISTS (
                SELECT FROM pg_trigger b WHERE b.tgrelid = p.built AND NOT b.tgisinternal AND b.tgname = t.tgname
            )
        UNION ALL
        SELECT 4, 'security', p.name, p.name
        FROM pairs p
        JOIN pg_class l ON l.oid = p.live
        JOIN pg_class b ON b.oid = p.built
        WHERE coalesce(p_kind, 'security') = 'security'
            AND (
                (l.relrowsecurity, l.relforcerowsecurity) <> (b.relrowsecurity, b.relforcerowsecurity)
                OR EXISTS (SELECT FROM evosense_ops.build_policy_changes(p.live, p.built, p_schema, names))
            )
        UNION ALL
        SELECT 5, 'grants', r.table_name, r.name
        FROM (
            SELECT p.name AS table_name, p.name, p.live, p.built FROM pairs p
            UNION ALL
            SELECT p.name, s.relname::text, s.oid, b.oid
            FROM pairs p
            JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = p.live
                AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            JOIN pg_class b ON b.relname = s.relname AND b.relkind = 'S' AND b.relnamespace = to_regnamespace(p_schema)
        ) r
        WHERE coalesce(p_kind, 'grants') = 'grants'
            AND EXISTS (SELECT FROM evosense_ops.build_grant_changes(r.live, r.built))
        UNION ALL
        SELECT 6, 'autovacuum', p.name, p.name
        FROM pairs p
        WHERE coalesce(p_kind, 'autovacuum') = 'autovacuum'
            AND evosense_ops.build_options(p.live) IS DISTINCT FROM evosense_ops.build_options(p.built)
        UNION ALL
        SELECT 7, 'comment', p.name, p.name
        FROM pairs p
        WHERE coalesce(p_kind, 'comment') = 'comment'
            AND obj_description(p.live, 'pg_class') IS DISTINCT FROM obj_description(p.built, 'pg_class')
        UNION ALL
        -- Last, and once: the rows that came since are autovacuum's. Partitions are looked at with their parent.
        SELECT 8, 'statistics', p.name, p.name
        FROM pairs p
        WHERE coalesce(p_kind, 'statistics') = 'statistics'
            AND p.depth = 0 AND p.name <> ALL (build.analysed) AND build.purpose <> 'kept'
    )
    SELECT m.kind, m.table_name, m.name FROM missing m ORDER BY m.step, m.table_name, m.name;
END
$$;
