-- The live relations of a build's tables, each with its counterpart in a schema. Raises where one has none.
CREATE OR REPLACE FUNCTION evosense_ops.build_pairs(p_schema text, p_tables text[])
RETURNS TABLE (live oid, built oid, name text, kind "char", depth integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    lacking text;
BEGIN
    SELECT string_agg(r.name, ', ') INTO lacking
    FROM evosense_ops.build_relations(p_tables) r
    WHERE to_regclass(format('%I.%I', p_schema, r.name)) IS NULL;
    IF lacking IS NOT NULL THEN
        RAISE EXCEPTION 'schema % lacks tables that it should have: %; drop the build and begin it again',
            quote_ident(p_schema), lacking
            USING ERRCODE = 'undefined_table';
    END IF;

    RETURN QUERY
    SELECT r.relation, to_regclass(format('%I.%I', p_schema, r.name))::oid, r.name, r.kind, r.depth
    FROM evosense_ops.build_relations(p_tables) r;
END
$$;
