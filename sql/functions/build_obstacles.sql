-- What would stop a swap of these tables, because it hangs on the live ones and would go on with the old: views,
-- functions, rules and foreign keys of others, publications, children by inheritance. Nothing in a normal installation:
-- our own views over the tables are re-made by the swap. What reads them through those views is no obstacle.
CREATE OR REPLACE FUNCTION evosense_ops.build_obstacles(p_tables text[])
RETURNS TABLE (kind text, name text, owner text, on_table text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH ours AS (
        SELECT r.relation, r.name, c.reltype AS row_type, t.typarray AS array_type
        FROM evosense_ops.build_relations(p_tables) r
        JOIN pg_class c ON c.oid = r.relation
        JOIN pg_type t ON t.oid = c.reltype
    ), dependent AS (
        SELECT DISTINCT d.classid, d.objid, o.name AS on_table
        FROM ours o
        JOIN pg_depend d ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation)
            OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (o.row_type, o.array_type))
        WHERE d.deptype NOT IN ('i', 'e')
    ), placed AS (
        -- The relation that a part belongs to, such as the view of a rule; NULL for what stands by itself.
        SELECT d.*, CASE d.classid
            WHEN 'pg_class'::regclass THEN d.objid
            WHEN 'pg_rewrite'::regclass THEN (SELECT w.ev_class FROM pg_rewrite w WHERE w.oid = d.objid)
            WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = d.objid)
            WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = d.objid)
            WHEN 'pg_attrdef'::regclass THEN (SELECT a.adrelid FROM pg_attrdef a WHERE a.oid = d.objid)
            WHEN 'pg_constraint'::regclass THEN (SELECT k.conrelid FROM pg_constraint k WHERE k.oid = d.objid)
        END AS relation
        FROM dependent d
    )
    SELECT DISTINCT
        CASE
            WHEN p.classid = 'pg_rewrite'::regclass AND c.relkind IN ('v', 'm')
                THEN (pg_identify_object('pg_class'::regclass, c.oid, 0)).type
            WHEN k.contype = 'f' THEN 'foreign key'
            ELSE i.type
        END,
        CASE
            WHEN p.classid = 'pg_rewrite'::regclass AND c.relkind IN ('v', 'm') THEN c.oid::regclass::text
            WHEN k.contype = 'f' THEN format('%s.%I', c.oid::regclass, k.conname)
            ELSE i.identity
        END,
        pg_get_userbyid(coalesce(c.relowner, f.proowner))::text,
        p.on_table
    FROM placed p
    CROSS JOIN LATERAL pg_identify_object(p.classid, p.objid, 0) i
    LEFT JOIN pg_class c ON c.oid = p.relation
    LEFT JOIN pg_constraint k ON p.classid = 'pg_constraint'::regclass AND k.oid = p.objid
    LEFT JOIN pg_proc f ON p.classid = 'pg_proc'::regclass AND f.oid = p.objid
    WHERE NOT (
        -- Parts of the tables themselves go with them; a rule would not be made again.
        (c.oid IN (SELECT o.relation FROM ours o) AND p.classid <> 'pg_rewrite'::regclass)
        -- Their indexes and sequences.
        OR (p.classid = 'pg_class'::regclass AND c.relkind IN ('i', 'I', 'S', 't'))
        -- Foreign keys of other live tables, and our views: the swap sees to them.
        OR (k.contype = 'f' AND c.relnamespace = 'evosense'::regnamespace)
        OR (p.classid = 'pg_rewrite'::regclass AND c.relkind = 'v' AND c.relnamespace = 'evosense'::regnamespace
            AND c.relowner = current_user::regrole)
    ) IS TRUE
    ORDER BY 1, 2, 4
$$;
