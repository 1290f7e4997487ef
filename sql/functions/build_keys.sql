-- A step of build_begin: primary keys, unique constraints and unique indexes of one table, by their names.
CREATE OR REPLACE FUNCTION evosense_ops.build_keys(p_live oid, p_schema text, p_names text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.relname AS table_name, i.relname AS index_name, i.reloptions AS options, k.conname AS constraint_name,
            CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.oid) ELSE pg_get_constraintdef(k.oid) END AS definition
        FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_class c ON c.oid = x.indrelid
        LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.contype IN ('p', 'u', 'x')
        WHERE x.indrelid = p_live AND NOT i.relispartition AND (k.oid IS NOT NULL OR x.indisunique)
        ORDER BY i.relname
    LOOP
        IF one.constraint_name IS NULL THEN
            EXECUTE replace(evosense_ops.build_rehomed(one.definition, p_schema, p_names), ' ON ONLY ', ' ON ');
            CONTINUE;
        END IF;
        EXECUTE format(
            'ALTER TABLE %I.%I ADD CONSTRAINT %I %s', p_schema, one.table_name, one.constraint_name, one.definition
        );
        IF one.options IS NOT NULL THEN
            EXECUTE format(
                'ALTER INDEX %I.%I SET (%s)', p_schema, one.index_name, evosense_ops.build_options_text(one.options)
            );
        END IF;
    END LOOP;
END
$$;
