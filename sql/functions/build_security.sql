-- A step of build_make: row-level security of one table, with the policies of the live one.
CREATE OR REPLACE FUNCTION evosense_ops.build_security(p_live oid, p_schema text, p_names text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    live pg_class;
    target text;
    one record;
BEGIN
    SELECT c.* INTO live FROM pg_class c WHERE c.oid = p_live;
    target := format('%I.%I', p_schema, live.relname);
    FOR one IN SELECT c.* FROM evosense_ops.build_policy_changes(p_live, target::regclass, p_schema, p_names) c LOOP
        EXECUTE format('DROP POLICY IF EXISTS %I ON %s', one.name, target);
        IF one.definition IS NOT NULL THEN
            EXECUTE format('CREATE POLICY %I ON %s %s', one.name, target, one.definition);
        END IF;
    END LOOP;
    EXECUTE format(
        'ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', target,
        CASE WHEN live.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END,
        CASE WHEN live.relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END
    );
END
$$;
