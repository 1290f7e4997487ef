-- The event log: what adapters/event_store asks of it.

-- name: lock_for_append()!
-- Appends happen one after the other, so that positions are given in commit order (DESIGN rule 2).
SELECT evosense_log.lock_for_append();

-- name: stream_versions(stream_ids)
-- The last version of each of these streams that exists.
SELECT s.originator_id, latest.originator_version
FROM unnest(:stream_ids::uuid[]) AS s(originator_id)
CROSS JOIN LATERAL (
    SELECT e.originator_version
    FROM evosense_log.stored_events AS e
    WHERE e.originator_id = s.originator_id
    ORDER BY e.originator_version DESC
    LIMIT 1
) AS latest;

-- name: append(originator_ids, originator_versions, topics, states, tenant_ids)
-- Append events in the order given; returns their positions in that order.
WITH appended AS (
    INSERT INTO evosense_log.stored_events (originator_id, originator_version, topic, state, tenant_id)
    SELECT i.originator_id, i.originator_version, i.topic, i.state, i.tenant_id
    FROM unnest(
        :originator_ids::uuid[], :originator_versions::bigint[], :topics::text[], :states::bytea[], :tenant_ids::uuid[]
    ) WITH ORDINALITY AS i(originator_id, originator_version, topic, state, tenant_id, place)
    ORDER BY i.place
    RETURNING notification_id
)
SELECT notification_id FROM appended ORDER BY notification_id;

-- name: append_at_once(stream_ids, standing_at, originator_ids, originator_versions, topics, states, tenant_ids, channel)^
-- Everything that an append is, in one statement: all events are appended and notified if every stream stands at the
-- version it is said to stand at, and none otherwise. The look at the streams may be older than the turn, for which the
-- table's trigger waits: a stream that has moved meanwhile makes the primary key refuse the statement.
WITH appended AS (
    INSERT INTO evosense_log.stored_events (originator_id, originator_version, topic, state, tenant_id)
    SELECT i.originator_id, i.originator_version, i.topic, i.state, i.tenant_id
    FROM unnest(
        :originator_ids::uuid[], :originator_versions::bigint[], :topics::text[], :states::bytea[], :tenant_ids::uuid[]
    ) WITH ORDINALITY AS i(originator_id, originator_version, topic, state, tenant_id, place)
    WHERE NOT EXISTS (
        SELECT FROM unnest(:stream_ids::uuid[], :standing_at::bigint[]) AS s(originator_id, originator_version)
        LEFT JOIN LATERAL (
            SELECT e.originator_version
            FROM evosense_log.stored_events AS e
            WHERE e.originator_id = s.originator_id
            ORDER BY e.originator_version DESC
            LIMIT 1
        ) AS latest ON true
        WHERE coalesce(latest.originator_version, 0) <> s.originator_version
    )
    ORDER BY i.place
    RETURNING notification_id
), extent AS (
    SELECT count(*) AS number, min(notification_id) AS first, max(notification_id) AS last FROM appended
)
SELECT number, first, last, CASE WHEN number > 0 THEN pg_notify(:channel, last::text) END FROM extent;

-- name: notify(channel, payload)!
SELECT pg_notify(:channel, :payload);

-- name: page(after, until, page)
-- The next events, in the columns and order of the library's `Notification`.
SELECT originator_id, originator_version, topic, state, notification_id
FROM evosense_log.stored_events
WHERE notification_id > :after AND notification_id <= :until
ORDER BY notification_id
LIMIT :page;

-- name: page_of_part(after, until, page, shard, shards, tenant_id, topics)
-- The next events of one tenant shard, of one tenant or of some topics.
SELECT originator_id, originator_version, topic, state, notification_id
FROM evosense_log.stored_events
WHERE notification_id > :after AND notification_id <= :until
    AND (:shards = 1 OR evosense_ops.shard_of(tenant_id, :shards) = :shard)
    AND (:tenant_id::uuid IS NULL OR tenant_id = :tenant_id::uuid)
    AND (cardinality(:topics::text[]) = 0 OR topic = ANY(:topics::text[]))
ORDER BY notification_id
LIMIT :page;

-- name: position_at(moment)$
-- The last position recorded at or before a moment. Moments ascend with positions, as both are given under one lock.
SELECT max(notification_id) FROM evosense_log.stored_events WHERE recorded_at <= :moment;

-- name: event_at(stream_id, version)^
-- One event by its place in its stream.
SELECT notification_id, topic, state
FROM evosense_log.stored_events
WHERE originator_id = :stream_id AND originator_version = :version;

-- name: last_position_of(stream_id)$
-- The position of a stream's last event; no row where there is no such stream.
SELECT notification_id
FROM evosense_log.stored_events
WHERE originator_id = :stream_id
ORDER BY originator_version DESC
LIMIT 1;

-- name: births_after(position, until, tenant_id, topics, page)
-- The next of a tenant's streams that begin with an event of these topics, and its position.
SELECT notification_id, originator_id
FROM evosense_log.stored_events
WHERE notification_id > :position AND notification_id <= :until AND tenant_id = :tenant_id
    AND topic = ANY(:topics::text[])
ORDER BY notification_id
LIMIT :page;

-- name: positions_of(stream_ids, versions)
-- The positions of these events, of each stream one.
SELECT e.originator_id, e.notification_id
FROM unnest(:stream_ids::uuid[], :versions::bigint[]) AS s(originator_id, originator_version)
JOIN evosense_log.stored_events AS e USING (originator_id, originator_version);

-- name: births(stream_ids)
-- The position of the first event of each stream: it is the id of the row that the stream became (DESIGN rule 1).
SELECT e.originator_id, e.notification_id
FROM evosense_log.stored_events AS e
WHERE e.originator_id = ANY(:stream_ids::uuid[]) AND e.originator_version = 1;

-- name: stream_at(position)^
-- The stream, tenant and topic of the event at a position.
SELECT originator_id, tenant_id, topic FROM evosense_log.stored_events WHERE notification_id = :position;

-- name: streams_at(positions)
-- The streams of the events at these positions.
SELECT notification_id, originator_id
FROM evosense_log.stored_events
WHERE notification_id = ANY(:positions::bigint[]);

-- name: seal_away(stream_id, versions, states)$
SELECT evosense_log.seal_away(:stream_id, :versions::bigint[], :states::bytea[]);

-- name: stream_events(stream_id, after)
-- A stream's events behind a version, with their positions.
SELECT notification_id, originator_version, topic, state
FROM evosense_log.stored_events
WHERE originator_id = :stream_id AND originator_version > :after
ORDER BY originator_version;

-- name: streams_events(stream_ids, versions)
-- The events of several streams, of each those behind a version.
SELECT e.originator_id, e.originator_version, e.topic, e.state
FROM unnest(:stream_ids::uuid[], :versions::bigint[]) AS s(id, version)
JOIN evosense_log.stored_events AS e ON e.originator_id = s.id AND e.originator_version > s.version
ORDER BY e.originator_id, e.originator_version;

-- name: envelopes_after(position, batch)
-- Everything about the next events except what is in them: all that the relay may know.
SELECT notification_id, tenant_id, originator_id, originator_version, topic
FROM evosense_log.stored_events
WHERE notification_id > :position
ORDER BY notification_id
LIMIT :batch;

-- name: head()^
-- The last position of the log; 0 where nothing was ever appended.
SELECT coalesce(max(notification_id), 0) AS position FROM evosense_log.stored_events;

-- name: tenant_key(tenant_id)^
SELECT wrapped_key, master_key_id FROM evosense_log.tenant_keys WHERE tenant_id = :tenant_id;

-- name: add_tenant_key(tenant_id, wrapped_key, master_key_id, known)!
-- Who can't open all keys has been left behind by a rotation, and may not add one.
INSERT INTO evosense_log.tenant_keys (tenant_id, wrapped_key, master_key_id)
SELECT :tenant_id, :wrapped_key, :master_key_id
WHERE NOT EXISTS (SELECT FROM evosense_log.tenant_keys WHERE master_key_id <> ALL(:known::text[]))
ON CONFLICT (tenant_id) DO NOTHING;

-- name: log_identity()$
-- What tells this log from one in another database, in which the same positions name other events.
SELECT to_hex(c.system_identifier) || '.' || d.oid
FROM pg_control_system() AS c
JOIN pg_database AS d ON d.datname = current_database();

-- name: last_positions(stream_ids)
-- The position of the last event of each of these streams that exists.
SELECT s.originator_id, latest.notification_id
FROM unnest(:stream_ids::uuid[]) AS s(originator_id)
CROSS JOIN LATERAL (
    SELECT e.notification_id
    FROM evosense_log.stored_events AS e
    WHERE e.originator_id = s.originator_id
    ORDER BY e.originator_version DESC
    LIMIT 1
) AS latest;

-- name: share_tenant_keys()!
-- Until the transaction ends, keys may be added by anybody, and are not wrapped anew.
SELECT pg_advisory_xact_lock_shared('evosense_log.tenant_keys'::regclass::oid::bigint);

-- name: own_tenant_keys()!
-- Until the transaction ends, nobody adds a key or wraps one anew; what was being added is there.
SELECT pg_advisory_xact_lock('evosense_log.tenant_keys'::regclass::oid::bigint);

-- name: probe_tenant_keys()
-- One key for each master key that wraps any.
SELECT DISTINCT ON (master_key_id) tenant_id, wrapped_key, master_key_id
FROM evosense_log.tenant_keys
ORDER BY master_key_id, created_at;

-- name: tenant_key_census()
-- How many keys each master key wraps.
SELECT master_key_id, count(*) AS tenants FROM evosense_log.tenant_keys GROUP BY master_key_id;

-- name: tenant_keys_after(after, limit)
-- The next keys in the order of their tenants.
SELECT tenant_id, wrapped_key, master_key_id
FROM evosense_log.tenant_keys
WHERE :after::uuid IS NULL OR tenant_id > :after
ORDER BY tenant_id
LIMIT :limit;

-- name: tenant_keys_of(master_key_id, after, limit)
-- The next keys that this master key wraps, in the order of their tenants.
SELECT tenant_id, wrapped_key
FROM evosense_log.tenant_keys
WHERE master_key_id = :master_key_id AND (:after::uuid IS NULL OR tenant_id > :after)
ORDER BY tenant_id
LIMIT :limit;

-- name: rewrap_tenant_keys(tenant_ids, wrapped_keys, old, new)!
-- Put in the place of keys that the master key `old` wraps the same keys as `new` wraps them.
UPDATE evosense_log.tenant_keys AS k
SET wrapped_key = n.wrapped_key, master_key_id = :new
FROM unnest(:tenant_ids::uuid[], :wrapped_keys::bytea[]) AS n(tenant_id, wrapped_key)
WHERE k.tenant_id = n.tenant_id AND k.master_key_id = :old;
