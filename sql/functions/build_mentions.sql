-- Whether a definition names one of these tables of the live schema.
CREATE OR REPLACE FUNCTION evosense_ops.build_mentions(p_definition text, p_names text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cardinality(p_names) > 0 AND p_definition ~ ('\mevosense\.(' || array_to_string(p_names, '|') || ')\M')
$$;
