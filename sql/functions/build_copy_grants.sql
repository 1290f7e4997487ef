-- Gives a relation the privileges of another, and no more than those.
CREATE OR REPLACE FUNCTION evosense_ops.build_copy_grants(p_from regclass, p_to regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
    sequence boolean := (SELECT c.relkind = 'S' FROM pg_class c WHERE c.oid = p_to);
BEGIN
    -- REVOKE first: taking away the right to grant takes the privilege along.
    FOR one IN
        SELECT c.*, coalesce(quote_ident(r.rolname), 'PUBLIC') AS role_name
        FROM evosense_ops.build_grant_changes(p_from, p_to) c
        LEFT JOIN pg_roles r ON r.oid = c.grantee
        ORDER BY c.action DESC
    LOOP
        EXECUTE format(
            '%s %s%s ON %s%s %s %s%s', one.action, one.privilege, ' (' || quote_ident(one.column_name) || ')',
            CASE WHEN sequence THEN 'SEQUENCE ' END, p_to, CASE one.action WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END,
            one.role_name, CASE WHEN one.action = 'GRANT' AND one.grantable THEN ' WITH GRANT OPTION' END
        );
    END LOOP;
END
$$;
