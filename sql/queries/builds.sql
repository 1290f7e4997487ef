-- Builds: read models in a schema of their own. What changes structure is a function of the owner's (sql/functions).

-- name: add_build(schema, purpose, projections, tables, until, fingerprint, schema_version)^
INSERT INTO evosense_ops.builds (schema_name, purpose, projections, tables, until, fingerprint, schema_version)
SELECT coalesce(:schema::text, 'evosense_' || :purpose || '_' || (SELECT coalesce(max(id), 0) + 1 FROM evosense_ops.builds)),
    :purpose, :projections::text[], :tables::text[], :until::bigint, :fingerprint, :schema_version
RETURNING id, schema_name, purpose, projections, tables, state, position, until, positions, parked, fingerprint,
    schema_version, started_at;

-- name: builds()
SELECT id, schema_name, purpose, projections, tables, state, position, until, positions, parked, fingerprint,
    schema_version, started_at
FROM evosense_ops.builds
ORDER BY id;

-- name: build_of_schema(schema)^
SELECT id, schema_name, purpose, projections, tables, state, position, until, positions, parked, fingerprint,
    schema_version, started_at
FROM evosense_ops.builds
WHERE schema_name = :schema;

-- name: move_build(id, from_position, to_position)!
-- Compare and set, in the transaction that writes the rows.
UPDATE evosense_ops.builds SET position = :to_position WHERE id = :id AND position = :from_position;

-- name: divide_build(id, positions)!
-- From here on it is loaded in shards of the tenants, each with its own position.
UPDATE evosense_ops.builds SET positions = :positions::bigint[] WHERE id = :id;

-- name: move_build_shard(id, shard, from_position, to_position)!
-- The same for one shard, counted from 1.
UPDATE evosense_ops.builds SET positions[:shard] = :to_position
WHERE id = :id AND positions[:shard] = :from_position;

-- name: set_build_state(id, state)!
UPDATE evosense_ops.builds
SET state = :state, finished_at = CASE WHEN :state = 'ready' THEN now() END
WHERE id = :id;

-- name: level_build(id, position)!
-- Its shards, which stood at different positions when it was set aside, have all come to this one.
UPDATE evosense_ops.builds SET position = :position, positions = NULL WHERE id = :id;

-- name: forget_build(id)!
DELETE FROM evosense_ops.builds WHERE id = :id;

-- name: keep_build(id, position, positions, subscriber)!
-- Where the tables stood, shard by shard, when they were swapped out, and what was parked for them until then.
UPDATE evosense_ops.builds AS b
SET position = :position, positions = :positions::bigint[], state = 'ready', finished_at = now(),
    parked = (
        SELECT coalesce(jsonb_agg(jsonb_build_object('position', e.position, 'projections', ours.names)
            ORDER BY e.position), '[]')
        FROM evosense_ops.parked_events AS e
        CROSS JOIN LATERAL (
            SELECT ARRAY(
                SELECT unnest(b.projections) INTERSECT SELECT unnest(coalesce(e.projections, b.projections))
            ) AS names
        ) AS ours
        WHERE e.subscriber = :subscriber AND ours.names <> '{}'
    )
WHERE b.id = :id;

-- name: unpark_build(id)!
-- What its tables were without is in them.
UPDATE evosense_ops.builds SET parked = '[]' WHERE id = :id;

-- name: build_begin(schema, unlogged)!
SELECT evosense_ops.build_begin(:schema, :unlogged);

-- name: build_missing(schema)
SELECT kind, table_name, name FROM evosense_ops.build_missing(:schema);

-- name: build_make(schema, kind, table_name, name)!
SELECT evosense_ops.build_make(:schema, :kind, :table_name, :name);

-- name: build_orphans(schema, table_name, name, most)
SELECT key FROM evosense_ops.build_orphans(:schema, :table_name, :name, :most);

-- name: build_swap(schema, old_schema)!
SELECT evosense_ops.build_swap(:schema, :old_schema);

-- name: build_obstacles(tables)
SELECT kind, name, owner, on_table FROM evosense_ops.build_obstacles(:tables::text[]);

-- name: build_unvalidated(tables)
SELECT table_name, name FROM evosense_ops.build_unvalidated(:tables::text[]);

-- name: build_validate(table_name, name)!
SELECT evosense_ops.build_validate(:table_name, :name);

-- name: build_drop(schema)!
SELECT evosense_ops.build_drop(:schema);

-- name: build_publish(schema)!
SELECT evosense_ops.build_publish(:schema);

-- name: try_guard(number)$
-- For the session: it ends with the process that holds it.
SELECT pg_try_advisory_lock('evosense_ops.builds'::regclass::oid::int, :number);

-- name: release_guard(number)!
SELECT pg_advisory_unlock('evosense_ops.builds'::regclass::oid::int, :number);

-- name: is_alive()$
SELECT true;

-- name: lock_timeout(milliseconds)!
SELECT set_config('lock_timeout', :milliseconds || 'ms', true);

-- name: load_settings()!
-- For a transaction that loads: rows and position commit together, so a crash may cost the last few, and never tears.
SELECT set_config('synchronous_commit', 'off', true);

-- name: index_settings(memory)!
SELECT set_config('maintenance_work_mem', :memory, true);

-- name: in_the_way(tables)
-- What keeps the swap waiting: transactions that have used one of these tables and go on.
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), a.usename) AS who,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = 'evosense'::regnamespace
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE c.relname = ANY(:tables::text[]) AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY seconds DESC NULLS LAST;

-- name: open_transactions()
-- Of this database, the longest first. Projectors, who have their checkpoints locked or wait for that, look anew with
-- each statement.
SELECT l.virtualtransaction AS transaction, a.pid, coalesce(nullif(a.application_name, ''), a.usename) AS who,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
    AND a.usesysid IS NOT NULL -- not autovacuum
    AND NOT EXISTS (
        SELECT FROM pg_locks AS c
        WHERE c.pid = l.pid AND c.relation = 'evosense_ops.projection_checkpoints'::regclass
            AND c.mode IN ('RowShareLock', 'RowExclusiveLock')
    )
ORDER BY seconds DESC NULLS LAST;

-- name: size_of(tables)$
-- Bytes that these tables take, with their indexes and partitions.
SELECT coalesce(sum(pg_total_relation_size(tree.relid)), 0)::bigint
FROM unnest(:tables::text[]) AS t(name)
CROSS JOIN LATERAL pg_partition_tree(format('evosense.%%I', t.name)::regclass) AS tree;

-- name: schema_size(schema)$
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relkind IN ('r', 'p');

-- name: log_size()$
SELECT pg_total_relation_size('evosense_log.stored_events');

-- name: schema_version()$
SELECT coalesce(max(version), 0) FROM evosense_ops.schema_migrations;

-- name: snapshot()!
-- From here on the transaction sees one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: audit_differences(schema, table_name, tenant_id, most)
SELECT key, difference, columns FROM evosense_ops.audit_differences(:schema, :table_name, :tenant_id::uuid, :most);

-- name: audit_digests(schema, table_name, tenant_id)
SELECT tenant_id, rows, digest FROM evosense_ops.audit_digests(:schema, :table_name, :tenant_id::uuid);
