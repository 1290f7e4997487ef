-- Why the tables of a schema can't take the place of the live ones, in words; NULL where they can.
CREATE OR REPLACE FUNCTION evosense_ops.build_refusal(p_schema text, p_tables text[]) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(concat_ws(' ', o.kind, o.name, 'of ' || o.owner, '(on ' || o.on_table || ')'), ', ') INTO found
    FROM evosense_ops.build_obstacles(p_tables) o;
    IF found IS NOT NULL THEN
        RETURN 'these depend on the live tables and would go on with the old ones: ' || found;
    END IF;

    SELECT string_agg(p.name, ', ') INTO found
    FROM evosense_ops.build_pairs(p_schema, p_tables) p
    JOIN pg_class l ON l.oid = p.live
    JOIN pg_class b ON b.oid = p.built
    WHERE l.relpersistence <> b.relpersistence
        OR evosense_ops.build_columns(l.oid) IS DISTINCT FROM evosense_ops.build_columns(b.oid);
    IF found IS NOT NULL THEN
        RETURN format('schema %I has these tables otherwise than they are live: %s; build them again', p_schema, found);
    END IF;

    SELECT string_agg(format('%s %s of %s', m.kind, m.name, m.table_name), ', ') INTO found
    FROM evosense_ops.build_missing(p_schema) m
    WHERE m.kind <> 'statistics';
    RETURN format('schema %I lacks ', p_schema) || found || ': make what build_missing() lists first';
END
$$;
