-- The projection engine: its checkpoints and what it had to park.

-- name: ensure_checkpoints(projections)!
-- One checkpoint for each shard: as many shards as there are already, one where there are none.
INSERT INTO evosense_ops.projection_checkpoints (projection, shard, shards, position)
SELECT p, shard, layout.shards, 0
FROM (SELECT coalesce(max(shards), 1) AS shards FROM evosense_ops.projection_checkpoints) AS layout
CROSS JOIN unnest(:projections::text[]) AS p
CROSS JOIN LATERAL generate_series(0, layout.shards - 1) AS shard
ON CONFLICT (projection, shard) DO NOTHING;

-- name: lock_shard(projections, shard, frozen)
-- A second projector waits here and then finds that the first has moved on. A process that freezes within the
-- transaction keeps these locks no longer than it may stand idle (in seconds); set here, it is gone with the
-- transaction, as a pool in transaction mode needs it.
WITH idle AS (
    SELECT set_config('idle_in_transaction_session_timeout', round(1000 * :frozen::numeric)::text || 'ms', true)
        AS timeout
)
SELECT c.projection, c.position, c.shards, c.holder, c.epoch
FROM evosense_ops.projection_checkpoints AS c
CROSS JOIN idle
WHERE c.projection = ANY(:projections::text[]) AND c.shard = :shard AND idle.timeout IS NOT NULL
ORDER BY c.projection
FOR UPDATE OF c;

-- name: lock_checkpoints(projections)
-- All shards: while the transaction lasts, nothing is projected.
SELECT projection, shard, shards, position
FROM evosense_ops.projection_checkpoints
WHERE projection = ANY(:projections::text[])
ORDER BY shard, projection
FOR UPDATE;

-- name: move_checkpoints(projections, shard, epoch, from_position, to_position, lease)!
-- Compare and set: moves nothing where somebody else has moved it or holds it (DESIGN rule 7). Renews the lease.
UPDATE evosense_ops.projection_checkpoints
SET position = :to_position, updated_at = now(), held_until = clock_timestamp() + make_interval(secs => :lease)
WHERE projection = ANY(:projections::text[]) AND shard = :shard AND epoch = :epoch AND position = :from_position;

-- name: set_checkpoints(projections, position)!
UPDATE evosense_ops.projection_checkpoints SET position = :position, updated_at = now()
WHERE projection = ANY(:projections::text[]);

-- name: checkpoints()
SELECT projection, shard, shards, position, updated_at, holder, held_until > clock_timestamp() AS held
FROM evosense_ops.projection_checkpoints
ORDER BY shard, projection;

-- name: projected_position(projections)^
-- The position that all of these projections have reached; NULL where one has never run.
SELECT CASE WHEN count(DISTINCT projection) = cardinality(:projections::text[]) THEN min(position) END AS position
FROM evosense_ops.projection_checkpoints
WHERE projection = ANY(:projections::text[]);

-- name: seen_projector(holder)!
INSERT INTO evosense_ops.projectors (holder, seen_at) VALUES (:holder, clock_timestamp())
ON CONFLICT (holder) DO UPDATE SET seen_at = excluded.seen_at;

-- name: gone_projector(holder)!
DELETE FROM evosense_ops.projectors WHERE holder = :holder;

-- name: forget_projectors(lease)!
-- Those that have not been heard of for a good while.
DELETE FROM evosense_ops.projectors WHERE seen_at < clock_timestamp() - 10 * make_interval(secs => :lease);

-- name: living_projectors(projections, lease)
-- Each living process, and how many shards it holds.
SELECT p.holder, count(DISTINCT c.shard) AS shards
FROM evosense_ops.projectors AS p
LEFT JOIN evosense_ops.projection_checkpoints AS c
    ON c.holder = p.holder AND c.projection = ANY(:projections::text[])
WHERE p.seen_at > clock_timestamp() - make_interval(secs => :lease)
GROUP BY p.holder;

-- name: shards(projections, holder)
-- Every shard: whether this holder has all of it, could take all of it, and whether all projections have begun there.
SELECT shard, bool_and(holder IS NOT DISTINCT FROM :holder) AS ours,
    count(*) = cardinality(:projections::text[]) AS complete,
    bool_and(holder IS NULL OR holder = :holder OR held_until < clock_timestamp()) AS free
FROM evosense_ops.projection_checkpoints
WHERE projection = ANY(:projections::text[])
GROUP BY shard
ORDER BY shard;

-- name: take_shard(projections, shard, holder, lease)
-- All projections of a shard or none: those that point at others' rows have to go in step with them. Who is in the
-- middle of a batch has locked its rows, and is not waited for.
WITH free AS (
    SELECT projection, shard
    FROM evosense_ops.projection_checkpoints
    WHERE projection = ANY(:projections::text[]) AND shard = :shard
        AND (holder IS NULL OR holder = :holder OR held_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED
)
UPDATE evosense_ops.projection_checkpoints AS c
SET holder = :holder, held_until = clock_timestamp() + make_interval(secs => :lease),
    epoch = CASE WHEN c.holder = :holder THEN c.epoch ELSE c.epoch + 1 END
FROM free
WHERE c.projection = free.projection AND c.shard = free.shard
    AND (SELECT count(*) FROM free) = cardinality(:projections::text[])
RETURNING c.projection, c.shards, c.position, c.epoch;

-- name: set_epoch(projections, shard, epoch, holder)!
UPDATE evosense_ops.projection_checkpoints SET epoch = :epoch
WHERE projection = ANY(:projections::text[]) AND shard = :shard AND holder = :holder AND epoch <> :epoch;

-- name: renew_shards(projections, shards, holder, lease)!
-- Locked in the order in which everybody locks them: two who wait for one another would be a deadlock.
WITH ours AS (
    SELECT projection, shard
    FROM evosense_ops.projection_checkpoints
    WHERE projection = ANY(:projections::text[]) AND shard = ANY(:shards::int[]) AND holder = :holder
    ORDER BY shard, projection
    FOR UPDATE
)
UPDATE evosense_ops.projection_checkpoints AS c
SET held_until = clock_timestamp() + make_interval(secs => :lease)
FROM ours
WHERE c.projection = ours.projection AND c.shard = ours.shard;

-- name: release_shards(projections, shards, holder)!
WITH ours AS (
    SELECT projection, shard
    FROM evosense_ops.projection_checkpoints
    WHERE projection = ANY(:projections::text[]) AND shard = ANY(:shards::int[]) AND holder = :holder
    ORDER BY shard, projection
    FOR UPDATE
)
UPDATE evosense_ops.projection_checkpoints AS c
SET holder = NULL, held_until = NULL
FROM ours
WHERE c.projection = ours.projection AND c.shard = ours.shard;

-- name: drop_checkpoints(projections)!
DELETE FROM evosense_ops.projection_checkpoints WHERE projection = ANY(:projections::text[]);

-- name: lay_out_shards(projections, shards, position)!
INSERT INTO evosense_ops.projection_checkpoints (projection, shard, shards, position)
SELECT p, shard, :shards, :position
FROM unnest(:projections::text[]) AS p
CROSS JOIN generate_series(0, :shards - 1) AS shard;

-- name: notify(channel, payload)!
SELECT pg_notify(:channel, :payload);

-- name: set_aside(subscriber, projections, after, up_to)
-- What is not to be projected: streams of which an event is parked, and single events that an operator has skipped.
SELECT stream_id, NULL::bigint AS position
FROM evosense_ops.parked_events
WHERE subscriber = :subscriber AND (projections IS NULL OR projections && :projections::text[])
UNION
SELECT NULL, position FROM evosense_ops.skipped_events WHERE position > :after AND position <= :up_to;

-- name: park(subscriber, position, tenant_id, stream_id, event_type, reason, attempts, projections)!
INSERT INTO evosense_ops.parked_events (
    subscriber, position, tenant_id, stream_id, event_type, reason, attempts, projections
)
VALUES (
    :subscriber, :position, :tenant_id, :stream_id, :event_type, :reason, :attempts, :projections::text[]
)
-- Projections that came to it at different times park it together.
ON CONFLICT (subscriber, position) DO UPDATE
SET reason = excluded.reason, attempts = excluded.attempts, parked_at = now(),
    projections = (
        SELECT array_agg(DISTINCT p)
        FROM unnest(evosense_ops.parked_events.projections || excluded.projections) AS p
    );

-- name: parked()
SELECT subscriber, position, tenant_id, stream_id, event_type, reason, attempts, projections, parked_at
FROM evosense_ops.parked_events
ORDER BY subscriber, position;

-- name: parked_at(subscriber, position)^
SELECT subscriber, position, tenant_id, stream_id, event_type, reason, attempts, projections, parked_at
FROM evosense_ops.parked_events
WHERE subscriber = :subscriber AND position = :position;

-- name: parked_before(subscriber, position)$
-- The first parked event of the same stream that comes before this one; no row where there is none.
SELECT min(earlier.position)
FROM evosense_ops.parked_events AS earlier
JOIN evosense_ops.parked_events AS one USING (subscriber, stream_id)
WHERE one.subscriber = :subscriber AND one.position = :position AND earlier.position < one.position;

-- name: parked_positions(subscriber)
SELECT position, stream_id FROM evosense_ops.parked_events WHERE subscriber = :subscriber ORDER BY position;

-- name: parked_counts()
SELECT subscriber, count(*) AS parked FROM evosense_ops.parked_events GROUP BY subscriber ORDER BY subscriber;

-- name: failed_again(subscriber, position, reason)!
UPDATE evosense_ops.parked_events
SET reason = :reason, attempts = attempts + 1, parked_at = now()
WHERE subscriber = :subscriber AND position = :position;

-- name: rebuilt_parked(subscriber, projections)!
-- What these projections have left behind is in their new tables; what others have left behind stays.
WITH rest AS (
    UPDATE evosense_ops.parked_events AS e
    SET projections = ARRAY(SELECT unnest(e.projections) EXCEPT SELECT unnest(:projections::text[]))
    WHERE e.subscriber = :subscriber AND e.projections && :projections::text[]
        AND NOT e.projections <@ :projections::text[]
)
DELETE FROM evosense_ops.parked_events AS e
WHERE e.subscriber = :subscriber AND (e.projections IS NULL OR e.projections <@ :projections::text[]);

-- name: skip(position, tenant_id, stream_id, event_type, reason)!
INSERT INTO evosense_ops.skipped_events (position, tenant_id, stream_id, event_type, reason)
VALUES (:position, :tenant_id, :stream_id, :event_type, :reason)
ON CONFLICT (position) DO NOTHING;

-- name: event_to_skip(position)^
-- An event that is not parked, as parked_events would have it.
SELECT tenant_id, originator_id AS stream_id, topic AS event_type
FROM evosense_log.stored_events
WHERE notification_id = :position;

-- name: skipped()
SELECT position, tenant_id, stream_id, event_type, reason, skipped_at FROM evosense_ops.skipped_events ORDER BY position;

-- name: skipped_between(after, up_to)
SELECT position FROM evosense_ops.skipped_events WHERE position > :after AND position <= :up_to;

-- name: relay_checkpoint(name)$
SELECT position FROM evosense_ops.relay_checkpoints WHERE name = :name;

-- name: move_relay_checkpoint(name, position)!
INSERT INTO evosense_ops.relay_checkpoints (name, position) VALUES (:name, :position)
ON CONFLICT (name) DO UPDATE SET position = greatest(evosense_ops.relay_checkpoints.position, excluded.position);

-- name: forget_other_relay_checkpoints(prefix, name)!
-- Checkpoints of streams that are gone: each stream of JetStream has its own, under the relay's prefix.
DELETE FROM evosense_ops.relay_checkpoints WHERE starts_with(name, :prefix) AND name <> :name;

-- name: is_parked(subscriber, position)$
SELECT EXISTS (SELECT FROM evosense_ops.parked_events WHERE subscriber = :subscriber AND position = :position);

-- name: parked_since(subscriber, position)$
SELECT parked_at FROM evosense_ops.parked_events WHERE subscriber = :subscriber AND position = :position;

-- name: unpark(subscriber, position)!
DELETE FROM evosense_ops.parked_events WHERE subscriber = :subscriber AND position = :position;

-- name: unpark_as_it_was(subscriber, position, parked_at)!
-- Unless it was parked once more meanwhile.
DELETE FROM evosense_ops.parked_events
WHERE subscriber = :subscriber AND position = :position AND parked_at = :parked_at;

-- name: unpark_for(subscriber, position, reason)!
-- Unless it was parked for something else meanwhile.
DELETE FROM evosense_ops.parked_events
WHERE subscriber = :subscriber AND position = :position AND reason = :reason;
