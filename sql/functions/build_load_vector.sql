-- Loads the vector extension's library into the session: without it only a superuser may write its settings (hnsw.*)
-- into a function.
CREATE OR REPLACE FUNCTION evosense_ops.build_load_vector() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'SELECT %L::%I.vector', '[1]',
        (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector')
    );
END
$$;
