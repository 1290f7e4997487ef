-- Checks one of the keys that build_unvalidated lists, while reading and writing go on. Raises foreign_key_violation.
CREATE OR REPLACE FUNCTION evosense_ops.build_validate(p_table text, p_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hidden text;
BEGIN
    IF NOT EXISTS (SELECT FROM evosense_ops.build_unvalidated(ARRAY[p_table]) u
                   WHERE u.table_name = p_table AND u.name = p_name) THEN
        RAISE EXCEPTION 'table % has no foreign key % that is yet to be checked',
            coalesce(quote_ident(p_table), 'NULL'), coalesce(quote_ident(p_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Row-level security is forced on the owner, and the check would believe what it is shown.
    SELECT string_agg(DISTINCT e.relation::regclass::text, ', ') INTO hidden
    FROM pg_constraint k
    CROSS JOIN LATERAL (VALUES (k.conrelid), (k.confrelid)) AS e(relation)
    JOIN pg_class c ON c.oid = e.relation
    WHERE k.conrelid = format('evosense.%I', p_table)::regclass AND k.conname = p_name
        AND c.relrowsecurity AND c.relforcerowsecurity
        AND NOT EXISTS (
            SELECT
            FROM pg_policy p
            WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
                AND p.polroles @> ARRAY[c.relowner] AND pg_get_expr(p.polqual, p.polrelid) = 'true'
        );
    IF hidden IS NOT NULL THEN
        RAISE EXCEPTION 'foreign key % of % can''t be checked: row-level security hides rows of % from the owner',
            quote_ident(p_name), quote_ident(p_table), hidden
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Run `evosense migrate`, which makes policy owner_checks.';
    END IF;
    EXECUTE format('ALTER TABLE evosense.%I VALIDATE CONSTRAINT %I', p_table, p_name);
END
$$;
