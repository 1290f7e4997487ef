-- Who may do what with a relation, its columns included (column_name is then not NULL).
CREATE OR REPLACE FUNCTION evosense_ops.build_grants(p_relation oid)
RETURNS TABLE (column_name text, grantee oid, privilege text, grantable boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NULL::text, a.grantee, a.privilege_type, a.is_grantable
    FROM pg_class c
    CROSS JOIN LATERAL aclexplode(
        coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
    ) a
    WHERE c.oid = p_relation
    UNION ALL
    SELECT k.attname::text, a.grantee, a.privilege_type, a.is_grantable
    FROM pg_attribute k
    CROSS JOIN LATERAL aclexplode(k.attacl) a
    WHERE k.attrelid = p_relation AND NOT k.attisdropped
$$;
