-- The columns of a relation in their order, each with type and NOT NULL, to be compared with another's.
CREATE OR REPLACE FUNCTION evosense_ops.build_columns(p_relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(
        format('%I %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) ORDER BY a.attnum
    )
    FROM pg_attribute a
    WHERE a.attrelid = p_relation AND a.attnum > 0 AND NOT a.attisdropped
$$;
