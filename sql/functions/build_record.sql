-- The build of that schema. What the other functions may touch is decided here: a name that is no build's is refused.
CREATE OR REPLACE FUNCTION evosense_ops.build_record(p_schema text) RETURNS evosense_ops.builds
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found evosense_ops.builds;
BEGIN
    SELECT b.* INTO found FROM evosense_ops.builds b WHERE b.schema_name = p_schema;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'schema % is no build: it has no row in evosense_ops.builds',
            coalesce(quote_ident(p_schema), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN found;
END
$$;
