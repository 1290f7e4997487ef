-- The policies that one relation has and the other has not, or has otherwise. `definition` is that of the live one,
-- written for the other's schema; NULL for a policy that is only there.
CREATE OR REPLACE FUNCTION evosense_ops.build_policy_changes(p_live oid, p_built oid, p_schema text, p_names text[])
RETURNS TABLE (name text, definition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(l.name, b.name), l.definition
    FROM (
        SELECT p.name, evosense_ops.build_rehomed(p.definition, p_schema, p_names) AS definition
        FROM evosense_ops.build_policies(p_live) p
    ) l
    FULL JOIN evosense_ops.build_policies(p_built) b ON b.name = l.name
    WHERE l.definition IS DISTINCT FROM b.definition
$$;
