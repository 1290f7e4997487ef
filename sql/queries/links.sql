-- The listener's links with Evolution: who holds which (all as evosense_writer), and what a tenant may see of its own.

-- name: seen_listener(holder, nats, nats_error, counted)!
INSERT INTO evosense_ops.listeners (holder, seen_at, nats, nats_error, counted)
VALUES (:holder, clock_timestamp(), :nats, :nats_error, :counted::jsonb)
ON CONFLICT (holder) DO UPDATE
SET seen_at = excluded.seen_at, nats = excluded.nats, nats_error = excluded.nats_error, counted = excluded.counted;

-- name: gone_listener(holder)!
DELETE FROM evosense_ops.listeners WHERE holder = :holder;

-- name: forget_listeners(lease)!
-- Those that have not been heard of for a good while.
DELETE FROM evosense_ops.listeners WHERE seen_at < clock_timestamp() - 10 * make_interval(secs => :lease);

-- name: living_listeners(lease)
-- Each living process, and how many links it holds.
SELECT l.holder, (SELECT count(*) FROM evosense_ops.connection_links c WHERE c.holder = l.holder) AS links
FROM evosense_ops.listeners l
WHERE l.seen_at > clock_timestamp() - make_interval(secs => :lease);

-- name: ensure_links(ids, tenants, transport)!
INSERT INTO evosense_ops.connection_links (connection_id, tenant_id, transport)
SELECT id, tenant_id, :transport
FROM unnest(:ids::uuid[], :tenants::uuid[]) AS wanted(id, tenant_id)
WHERE NOT EXISTS (SELECT FROM evosense_ops.connection_links c WHERE c.connection_id = id)
ON CONFLICT (connection_id) DO NOTHING;

-- name: renew_links(reports, holder, lease)
-- Renews what is still ours, and says how it stands. `reports` is JSON: an array of objects with these fields.
UPDATE evosense_ops.connection_links AS c
SET held_until = clock_timestamp() + make_interval(secs => :lease), heartbeat_at = clock_timestamp(),
    state = r.state, since = r.since, attempts = r.attempts, error = r.error, last_event_at = r.last_event_at
FROM jsonb_to_recordset(:reports::jsonb) AS r(
    connection_id uuid, epoch bigint, state text, since timestamptz, attempts integer, error text,
    last_event_at timestamptz
)
WHERE c.connection_id = r.connection_id AND c.holder = :holder AND c.epoch = r.epoch
RETURNING c.connection_id;

-- name: take_links(ids, holder, lease, most)
-- What nobody holds, or somebody whose time is over. Whoever takes one at this moment has locked it: no waiting.
WITH free AS (
    SELECT connection_id
    FROM evosense_ops.connection_links
    WHERE connection_id = ANY(:ids::uuid[]) AND (holder IS NULL OR held_until < clock_timestamp())
    ORDER BY connection_id
    LIMIT :most
    FOR UPDATE SKIP LOCKED
)
UPDATE evosense_ops.connection_links AS c
SET holder = :holder, held_until = clock_timestamp() + make_interval(secs => :lease), epoch = c.epoch + 1,
    heartbeat_at = clock_timestamp(), state = 'connecting', since = clock_timestamp(), attempts = 0, error = NULL
FROM free
WHERE c.connection_id = free.connection_id
RETURNING c.connection_id, c.epoch, c.last_event_at;

-- name: release_links(reports, holder)!
-- Given back, so that others need not wait.
UPDATE evosense_ops.connection_links AS c
SET holder = NULL, held_until = NULL, last_event_at = r.last_event_at
FROM jsonb_to_recordset(:reports::jsonb) AS r(connection_id uuid, epoch bigint, last_event_at timestamptz)
WHERE c.connection_id = r.connection_id AND c.holder = :holder AND c.epoch = r.epoch;

-- name: link(connection_id)^
SELECT connection_id, transport, state, since, heartbeat_at, attempts, error, last_event_at,
    coalesce(held_until > clock_timestamp(), false) AS held
FROM evosense_ops.connection_links
WHERE connection_id = :connection_id;

-- name: links()
-- For an operator: all of them, those in trouble first.
SELECT c.connection_id, c.tenant_id, c.transport, c.state, c.since, c.heartbeat_at, c.attempts, c.error,
    c.last_event_at, c.holder, coalesce(c.held_until > clock_timestamp(), false) AS held
FROM evosense_ops.connection_links AS c
ORDER BY c.state = 'linked', c.tenant_id, c.connection_id;

-- name: listeners(lease)
-- Those that live.
SELECT holder, seen_at, nats, nats_error, counted
FROM evosense_ops.listeners
WHERE seen_at > clock_timestamp() - make_interval(secs => :lease)
ORDER BY holder;
