-- Puts the tables of a build in the place of the live ones, and those into p_old_schema, whose row of purpose `kept`
-- has to be there. A way back is the same with the kept schema. Both rows are the caller's to keep or to delete.
--
-- All in the caller's transaction, who has set lock_timeout; let it be shorter than deadlock_timeout, so that a reader
-- that locks in another order is never the one that fails. Readers wait from LOCK TABLE until the commit. Open
-- connections find the new tables: their plans are of the old ones, which were altered, and so are made again from the
-- names.
--
-- Foreign keys between a swapped table and one that stays are tied anew without a look at the rows (NOT VALID), which
-- would take long: build_unvalidated() lists them. An old table keeps none: live rows are nothing to it any more.
--
-- Raises dependent_objects_still_exist with what stands in the way (build_refusal).
CREATE OR REPLACE FUNCTION evosense_ops.build_swap(p_schema text, p_old_schema text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    kept evosense_ops.builds := evosense_ops.build_record(p_old_schema);
    names text[] := ARRAY(SELECT r.name FROM evosense_ops.build_relations(build.tables) r ORDER BY r.name);
    refusal text := evosense_ops.build_refusal(p_schema, build.tables);
    -- Written down before anything is moved: afterwards the same text means the new tables.
    cuts text[] := ARRAY(
        SELECT format('ALTER TABLE evosense.%I DROP CONSTRAINT %I', k.table_name, k.name)
        FROM evosense_ops.build_boundary_keys(build.tables) k
    );
    ties text[] := ARRAY(
        SELECT format('ALTER TABLE evosense.%I ADD CONSTRAINT %I %s', k.table_name, k.name, k.definition)
        FROM evosense_ops.build_boundary_keys(build.tables) k
    );
    views text[] := ARRAY(
        SELECT format('CREATE OR REPLACE VIEW evosense.%I%s AS %s', v.view_name, v.options, v.definition)
        FROM evosense_ops.build_views(build.tables) v
    );
    statement text;
BEGIN
    IF kept.purpose <> 'kept' OR NOT (kept.tables @> build.tables AND kept.tables <@ build.tables) THEN
        RAISE EXCEPTION 'build % has to be of purpose kept and of the same tables as %', p_old_schema, p_schema
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION '%', refusal USING ERRCODE = 'dependent_objects_still_exist';
    END IF;

    PERFORM evosense_ops.build_create_schema(p_old_schema);
    PERFORM evosense_ops.build_lock(p_schema, build.tables);

    FOREACH statement IN ARRAY
        cuts
        || ARRAY(SELECT format('ALTER TABLE evosense.%I SET SCHEMA %I', n, p_old_schema) FROM unnest(names) n)
        || ARRAY(SELECT format('ALTER TABLE %I.%I SET SCHEMA evosense', p_schema, n) FROM unnest(names) n)
        || ties
        || views
        || format('DROP SCHEMA %I', p_schema)
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
