-- A definition as the catalogue prints it (every name qualified), with these tables taken from another schema.
-- Functions, types and all other tables stay where they are.
CREATE OR REPLACE FUNCTION evosense_ops.build_rehomed(p_definition text, p_schema text, p_names text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT regexp_replace(
        p_definition, '\mevosense\.(' || array_to_string(p_names, '|') || ')\M', quote_ident(p_schema) || '.\1', 'g'
    )
$$;
