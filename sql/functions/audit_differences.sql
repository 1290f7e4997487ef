-- Compares a live table row by row with the same table of a build, of one tenant or of all: at most p_most differences
-- by key. `missing`: only the build has the row; `extra`: only the live table has it; `differs`: in these columns.
-- Values are compared as they are stored, to the bit. They are not shown: they may be personal.
CREATE OR REPLACE FUNCTION evosense_ops.audit_differences(
    p_schema text, p_table text, p_tenant_id uuid, p_most integer
)
RETURNS TABLE (key text, difference text, columns text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    live_table regclass := format('evosense.%I', p_table)::regclass;
    same_key text;
    live_key text;
    built_key text;
    of_tenant text := 'true';
    tenant_column text;
BEGIN
    SELECT string_agg(format('l.%1$I = b.%1$I', a.attname), ' AND ' ORDER BY k.place),
           string_agg(format('l.%I', a.attname), ', ' ORDER BY k.place),
           string_agg(format('b.%I', a.attname), ', ' ORDER BY k.place)
    INTO same_key, live_key, built_key
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = live_table AND i.indisprimary;

    IF p_tenant_id IS NOT NULL THEN
        tenant_column := evosense_ops.audit_tenant_column(live_table);
        IF tenant_column IS NULL THEN
            RETURN; -- belongs to no tenant
        END IF;
        of_tenant := format('coalesce(l.%1$I, b.%1$I) = %2$L', tenant_column, p_tenant_id);
    END IF;

    RETURN QUERY EXECUTE format(
        $query$
        SELECT coalesce(nullif(concat_ws(', ', %1$s), ''), concat_ws(', ', %2$s)),
               CASE WHEN l IS NULL THEN 'missing' WHEN b IS NULL THEN 'extra' ELSE 'differs' END,
               CASE WHEN l IS NULL OR b IS NULL THEN '{}' ELSE ARRAY(
                   SELECT one.key
                   FROM jsonb_each_text(to_jsonb(l)) AS one
                   JOIN jsonb_each_text(to_jsonb(b)) AS other USING (key)
                   WHERE one.value IS DISTINCT FROM other.value
                   ORDER BY one.key
               ) END
        FROM evosense.%3$I AS l
        FULL JOIN %4$I.%3$I AS b ON %5$s
        WHERE (l IS NULL OR b IS NULL OR l *<> b) AND %6$s
        ORDER BY coalesce(%7$s), coalesce(%8$s)
        LIMIT %9$L
        $query$,
        live_key, built_key, p_table, p_schema, same_key, of_tenant,
        split_part(live_key, ', ', 1) || ', ' || split_part(built_key, ', ', 1),
        split_part(live_key, ', ', -1) || ', ' || split_part(built_key, ', ', -1),
        p_most
    );
END
$$;
