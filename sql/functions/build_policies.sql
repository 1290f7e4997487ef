-- The policies of a relation, written so that those of two schemas can be compared and made again.
CREATE OR REPLACE FUNCTION evosense_ops.build_policies(p_relation oid)
RETURNS TABLE (name text, definition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.polname::text,
        concat_ws(
            ' ',
            'AS ' || CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            'FOR ' || CASE p.polcmd
                WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL'
            END,
            'TO ' || (
                SELECT string_agg(coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ' ORDER BY r.rolname)
                FROM unnest(p.polroles) AS o(role)
                LEFT JOIN pg_roles r ON r.oid = o.role
            ),
            'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
            'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'
        )
    FROM pg_policy p
    WHERE p.polrelid = p_relation
$$;
