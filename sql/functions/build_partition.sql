-- A step of build_begin: one partition, with the bounds of the live one.
CREATE OR REPLACE FUNCTION evosense_ops.build_partition(
    p_live oid, p_schema text, p_names text[], p_unlogged boolean
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    live pg_class;
    parent oid;
BEGIN
    SELECT c.* INTO live FROM pg_class c WHERE c.oid = p_live;
    SELECT i.inhparent INTO parent FROM pg_inherits i WHERE i.inhrelid = p_live;
    EXECUTE format(
        'CREATE %s TABLE %I.%I PARTITION OF %s %s%s%s',
        CASE WHEN p_unlogged AND live.relkind = 'r' THEN 'UNLOGGED' END, p_schema, live.relname,
        evosense_ops.build_rehomed(parent::regclass::text, p_schema, p_names),
        pg_get_expr(live.relpartbound, p_live), ' PARTITION BY ' || pg_get_partkeydef(p_live),
        CASE WHEN live.relkind = 'r' THEN evosense_ops.build_loading_options(p_live) END
    );
END
$$;
