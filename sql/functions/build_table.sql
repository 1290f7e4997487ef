-- A step of build_begin: one empty table like a live one.
CREATE OR REPLACE FUNCTION evosense_ops.build_table(p_live oid, p_schema text, p_unlogged boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    live pg_class;
    one record;
BEGIN
    SELECT c.* INTO live FROM pg_class c WHERE c.oid = p_live;
    EXECUTE format(
        'CREATE %s TABLE %I.%I (LIKE evosense.%I INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)%s%s',
        CASE WHEN p_unlogged AND live.relkind = 'r' THEN 'UNLOGGED' END, p_schema, live.relname, live.relname,
        ' PARTITION BY ' || pg_get_partkeydef(p_live),
        CASE WHEN live.relkind = 'r' THEN evosense_ops.build_loading_options(p_live) END
    );
    EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %I.%I TO evosense_projector', p_schema, live.relname
    );

    -- Serial columns: a sequence of their own. Those of identity columns come with LIKE.
    FOR one IN
        SELECT s.relname AS sequence_name, a.attname AS column_name, q.*,
            format_type(q.seqtypid, NULL) AS type_name
        FROM pg_depend d
        JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        JOIN pg_sequence q ON q.seqrelid = s.oid
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p_live
            AND d.deptype = 'a'
    LOOP
        EXECUTE format(
            'CREATE SEQUENCE %I.%I AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s %s OWNED BY %I.%I.%I',
            p_schema, one.sequence_name, one.type_name, one.seqincrement, one.seqmin, one.seqmax, one.seqstart,
            one.seqcache, CASE WHEN one.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END, p_schema, live.relname,
            one.column_name
        );
        EXECUTE format(
            'ALTER TABLE %I.%I ALTER COLUMN %I SET DEFAULT nextval(%L)', p_schema, live.relname, one.column_name,
            format('%I.%I', p_schema, one.sequence_name)
        );
    END LOOP;

    -- LIKE leaves out how thoroughly ANALYZE looks at a column.
    FOR one IN
        SELECT a.attname AS column_name, a.attstattarget AS target
        FROM pg_attribute a
        WHERE a.attrelid = p_live AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
    LOOP
        EXECUTE format(
            'ALTER TABLE %I.%I ALTER COLUMN %I SET STATISTICS %s', p_schema, live.relname, one.column_name, one.target
        );
    END LOOP;
END
$$;
