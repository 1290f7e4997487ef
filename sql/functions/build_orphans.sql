-- Rows of a build that point at rows which are not there, by a foreign key of the live table: the first of them by key.
-- A row's key is mostly the position of the event that it came from.
CREATE OR REPLACE FUNCTION evosense_ops.build_orphans(p_schema text, p_table text, p_name text, p_most integer)
RETURNS TABLE (key text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    live_key pg_constraint;
    key_columns text;
    pointers text;
    same text;
BEGIN
    SELECT * INTO STRICT live_key
    FROM pg_constraint c
    WHERE c.conrelid = format('evosense.%I', p_table)::regclass AND c.conname = p_name AND c.contype = 'f';

    SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY k.place) INTO key_columns
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = live_key.conrelid AND i.indisprimary;

    SELECT string_agg(format('t.%I IS NOT NULL', here.attname), ' AND '),
           string_agg(format('p.%I = t.%I', there.attname, here.attname), ' AND ')
    INTO pointers, same
    FROM unnest(live_key.conkey, live_key.confkey) AS k(here, there)
    JOIN pg_attribute here ON here.attrelid = live_key.conrelid AND here.attnum = k.here
    JOIN pg_attribute there ON there.attrelid = live_key.confrelid AND there.attnum = k.there;

    RETURN QUERY EXECUTE format(
        'SELECT concat_ws('', '', %1$s) FROM %2$I.%3$I AS t
         WHERE %4$s AND NOT EXISTS (SELECT FROM %2$I.%5$I AS p WHERE %6$s) ORDER BY %1$s LIMIT %7$L',
        key_columns, p_schema, p_table, pointers,
        (SELECT relname FROM pg_class WHERE oid = live_key.confrelid), same, p_most
    );
END
$$;
