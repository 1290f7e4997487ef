-- Makes the schema of a build. One that exists has to be ours and empty: nothing is ever dropped to make room.
CREATE OR REPLACE FUNCTION evosense_ops.build_create_schema(p_schema text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    space pg_namespace;
BEGIN
    SELECT n.* INTO space FROM pg_namespace n WHERE n.nspname = p_schema;
    IF space.oid IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I', p_schema);
    ELSIF space.nspowner <> current_user::regrole
        OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = space.oid)
        OR EXISTS (SELECT FROM pg_type t WHERE t.typnamespace = space.oid)
        OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = space.oid)
    THEN
        RAISE EXCEPTION 'schema % exists and is not an empty one of ours: drop it, or take another name', p_schema
            USING ERRCODE = 'duplicate_schema';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO evosense_projector', p_schema);
END
$$;
