-- Makes one of the things that build_missing lists. Raises for what is not missing.
CREATE OR REPLACE FUNCTION evosense_ops.build_make(p_schema text, p_kind text, p_table text, p_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    names text[] := ARRAY(SELECT r.name FROM evosense_ops.build_relations(build.tables) r);
    live oid;
    target text := format('%I.%I', p_schema, p_table);
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM evosense_ops.build_missing(p_schema, p_kind) m
        WHERE m.kind = p_kind AND m.table_name = p_table AND m.name = p_name
    ) THEN
        RAISE EXCEPTION '% % of table % is not missing from schema %',
            coalesce(p_kind, 'NULL'), coalesce(p_name, 'NULL'), coalesce(p_table, 'NULL'), p_schema
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    live := format('evosense.%I', p_table)::regclass;

    CASE p_kind
    WHEN 'index' THEN
        EXECUTE replace(
            evosense_ops.build_rehomed(pg_get_indexdef(format('evosense.%I', p_name)::regclass), p_schema, names),
            ' ON ONLY ', ' ON '
        );
    WHEN 'foreign key' THEN
        EXECUTE (
            SELECT format(
                'ALTER TABLE %s ADD CONSTRAINT %I %s', target, p_name,
                evosense_ops.build_rehomed(replace(pg_get_constraintdef(k.oid), ' NOT VALID', ''), p_schema, names)
            )
            FROM pg_constraint k
            WHERE k.conrelid = live AND k.conname = p_name
        );
    WHEN 'trigger' THEN
        EXECUTE (
            SELECT evosense_ops.build_rehomed(pg_get_triggerdef(t.oid), p_schema, names)
            FROM pg_trigger t
            WHERE t.tgrelid = live AND t.tgname = p_name
        );
    WHEN 'security' THEN
        PERFORM evosense_ops.build_security(live, p_schema, names);
    WHEN 'grants' THEN
        PERFORM evosense_ops.build_copy_grants(
            format('evosense.%I', p_name)::regclass, format('%I.%I', p_schema, p_name)::regclass
        );
    WHEN 'autovacuum' THEN
        PERFORM evosense_ops.build_copy_options(live, target::regclass);
    WHEN 'comment' THEN
        EXECUTE format('COMMENT ON TABLE %s IS %L', target, obj_description(live, 'pg_class'));
    WHEN 'statistics' THEN
        EXECUTE format('ANALYZE %s', target);
        UPDATE evosense_ops.builds SET analysed = array_append(analysed, p_table) WHERE id = build.id;
    END CASE;
END
$$;
