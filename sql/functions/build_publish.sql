-- Lets the application's role read a build as it reads the live schema: our views, the functions that it may call, and
-- the privileges. What needs a table that the build has not is left out. Row-level security came with build_make.
CREATE OR REPLACE FUNCTION evosense_ops.build_publish(p_schema text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    names text[] := ARRAY(SELECT r.name FROM evosense_ops.build_relations(build.tables) r);
    absent text[] := ARRAY(
        SELECT c.relname
        FROM pg_class c
        WHERE c.relnamespace = 'evosense'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> ALL (names)
    );
    one record;
BEGIN
    IF EXISTS (SELECT FROM evosense_ops.build_missing(p_schema) m WHERE m.kind = 'security') THEN
        RAISE EXCEPTION 'schema % has no row-level security yet: make what build_missing() lists first', p_schema
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO evosense_app', p_schema);

    FOR one IN
        SELECT v.* FROM evosense_ops.build_views(build.tables) v
        WHERE NOT evosense_ops.build_mentions(v.definition, absent)
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE VIEW %I.%I%s AS %s', p_schema, one.view_name, one.options,
            evosense_ops.build_rehomed(one.definition, p_schema, names)
        );
        PERFORM evosense_ops.build_copy_grants(
            format('evosense.%I', one.view_name)::regclass, format('%I.%I', p_schema, one.view_name)::regclass
        );
    END LOOP;

    PERFORM evosense_ops.build_load_vector();
    FOR one IN
        SELECT p.proname, pg_get_functiondef(p.oid) AS definition, pg_get_function_identity_arguments(p.oid) AS args
        FROM pg_proc p
        WHERE p.pronamespace = 'evosense'::regnamespace AND p.prokind = 'f'
            AND has_function_privilege('evosense_app', p.oid, 'EXECUTE')
            AND NOT evosense_ops.build_mentions(pg_get_functiondef(p.oid), absent)
    LOOP
        -- Also where its search_path names the live schema.
        EXECUTE regexp_replace(
            evosense_ops.build_rehomed(one.definition, p_schema, names || one.proname::text),
            '^( SET search_path TO .*)''evosense''', format('\1%L', p_schema), 'n'
        );
        EXECUTE format('REVOKE ALL ON FUNCTION %I.%I(%s) FROM PUBLIC', p_schema, one.proname, one.args);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO evosense_app', p_schema, one.proname, one.args);
    END LOOP;
END
$$;
