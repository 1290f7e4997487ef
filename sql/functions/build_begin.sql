-- Makes the empty tables of a build, in its schema, after the live ones of today: columns, checks, sequences,
-- partitions, and the keys and unique indexes that upserts need. The rest is made after loading (build_missing): other
-- indexes, foreign keys, triggers, row-level security (COPY refuses tables that have it), vacuuming.
-- p_unlogged: for tables that nobody needs after a crash; they can't be swapped in.
CREATE OR REPLACE FUNCTION evosense_ops.build_begin(p_schema text, p_unlogged boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    build evosense_ops.builds := evosense_ops.build_record(p_schema);
    names text[] := ARRAY(SELECT r.name FROM evosense_ops.build_relations(build.tables) r);
    live record;
BEGIN
    PERFORM evosense_ops.build_create_schema(p_schema);
    FOR live IN SELECT r.* FROM evosense_ops.build_relations(build.tables) r LOOP
        IF live.depth = 0 THEN
            PERFORM evosense_ops.build_table(live.relation, p_schema, p_unlogged);
        ELSE
            PERFORM evosense_ops.build_partition(live.relation, p_schema, names, p_unlogged);
        END IF;
    END LOOP;
    -- Of a partitioned table the partitions get theirs through the parent.
    FOR live IN SELECT r.* FROM evosense_ops.build_relations(build.tables) r LOOP
        PERFORM evosense_ops.build_keys(live.relation, p_schema, names);
    END LOOP;
END
$$;
