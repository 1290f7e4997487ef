-- The projection engine: its checkpoints and what it had to park.

-- name: ensure_checkpoints(projections)!
INSERT INTO evosense_ops.projection_checkpoints (projection, position)
SELECT p, 0 FROM unnest(:projections::text[]) AS p
ON CONFLICT (projection) DO NOTHING;

-- name: lock_checkpoints(projections)
-- A second projector waits here and then finds that the first has moved on.
SELECT projection, position FROM evosense_ops.projection_checkpoints
WHERE projection = ANY(:projections::text[])
ORDER BY projection
FOR UPDATE;

-- name: move_checkpoints(projections, from_position, to_position)!
-- Compare and set: moves nothing where somebody else has moved it (DESIGN rule 7).
UPDATE evosense_ops.projection_checkpoints
SET position = :to_position, updated_at = now()
WHERE projection = ANY(:projections::text[]) AND position = :from_position;

-- name: checkpoints()
SELECT projection, position, updated_at FROM evosense_ops.projection_checkpoints ORDER BY projection;

-- name: projected_position(projections)^
-- The position that all of these projections have reached; NULL where one has never run.
SELECT CASE WHEN count(*) = cardinality(:projections::text[]) THEN min(position) END AS position
FROM evosense_ops.projection_checkpoints
WHERE projection = ANY(:projections::text[]);

-- name: notify(channel, payload)!
SELECT pg_notify(:channel, :payload);

-- name: held_streams(subscriber)
-- Streams of which an event is parked: their later events are held back.
SELECT DISTINCT stream_id FROM evosense_ops.parked_events WHERE subscriber = :subscriber;

-- name: park(subscriber, position, tenant_id, stream_id, event_type, reason, attempts)!
INSERT INTO evosense_ops.parked_events (subscriber, position, tenant_id, stream_id, event_type, reason, attempts)
VALUES (:subscriber, :position, :tenant_id, :stream_id, :event_type, :reason, :attempts)
ON CONFLICT (subscriber, position) DO UPDATE
SET reason = excluded.reason, attempts = excluded.attempts, parked_at = now();

-- name: parked()
SELECT subscriber, position, tenant_id, stream_id, event_type, reason, attempts, parked_at
FROM evosense_ops.parked_events
ORDER BY subscriber, position;

-- name: parked_counts()
SELECT subscriber, count(*) AS parked FROM evosense_ops.parked_events GROUP BY subscriber ORDER BY subscriber;

-- name: forget_parked(subscriber)!
DELETE FROM evosense_ops.parked_events WHERE subscriber = :subscriber;

-- name: relay_checkpoint(name)$
SELECT position FROM evosense_ops.relay_checkpoints WHERE name = :name;

-- name: move_relay_checkpoint(name, position)!
INSERT INTO evosense_ops.relay_checkpoints (name, position) VALUES (:name, :position)
ON CONFLICT (name) DO UPDATE SET position = greatest(evosense_ops.relay_checkpoints.position, excluded.position);

-- name: set_checkpoints(projections, position)!
UPDATE evosense_ops.projection_checkpoints SET position = :position, updated_at = now()
WHERE projection = ANY(:projections::text[]);

-- name: forget_other_relay_checkpoints(prefix, name)!
-- Checkpoints of streams that are gone: each stream of JetStream has its own, under the relay's prefix.
DELETE FROM evosense_ops.relay_checkpoints WHERE starts_with(name, :prefix) AND name <> :name;

-- name: is_parked(subscriber, position)$
SELECT EXISTS (SELECT FROM evosense_ops.parked_events WHERE subscriber = :subscriber AND position = :position);

-- name: unpark(subscriber, position)!
DELETE FROM evosense_ops.parked_events WHERE subscriber = :subscriber AND position = :position;
