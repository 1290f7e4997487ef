-- What one relation grants and the other does not (`action` is GRANT), and the other way round (REVOKE).
CREATE OR REPLACE FUNCTION evosense_ops.build_grant_changes(p_live oid, p_built oid)
RETURNS TABLE (action text, column_name text, grantee oid, privilege text, grantable boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'REVOKE', b.*
    FROM (SELECT * FROM evosense_ops.build_grants(p_built) EXCEPT SELECT * FROM evosense_ops.build_grants(p_live)) b
    UNION ALL
    SELECT 'GRANT', l.*
    FROM (SELECT * FROM evosense_ops.build_grants(p_live) EXCEPT SELECT * FROM evosense_ops.build_grants(p_built)) l
$$;
