-- name: add_counts(connection_ids, tenant_ids, hours, transports, outcomes, kinds, reasons, counts)!
-- Once for the hour and once for all time, in an order that every process keeps to: no deadlocks.
INSERT INTO evosense_ops.connection_activity AS a (
    connection_id, tenant_id, hour, transport, outcome, kind, reason, count
)
SELECT t.connection_id, t.tenant_id, b.hour, t.transport, t.outcome, t.kind, t.reason, sum(t.count)
FROM unnest(
    :connection_ids::uuid[], :tenant_ids::uuid[], :hours::timestamptz[], :transports::text[], :outcomes::text[],
    :kinds::text[], :reasons::text[], :counts::bigint[]
) AS t(connection_id, tenant_id, hour, transport, outcome, kind, reason, count)
CROSS JOIN LATERAL (VALUES (t.hour), ('-infinity'::timestamptz)) AS b(hour)
GROUP BY t.connection_id, t.tenant_id, b.hour, t.transport, t.outcome, t.kind, t.reason
ORDER BY t.connection_id, b.hour, t.transport, t.outcome, t.kind, t.reason
ON CONFLICT (connection_id, hour, transport, outcome, kind, reason) DO UPDATE SET count = a.count + excluded.count;

-- name: put_last(connection_ids, tenant_ids, message_ats, sent_ats, states, state_ats)!
INSERT INTO evosense_ops.connection_last AS l (connection_id, tenant_id, message_at, sent_at, state, state_at)
SELECT connection_id, tenant_id, message_at, sent_at, state, state_at
FROM unnest(
    :connection_ids::uuid[], :tenant_ids::uuid[], :message_ats::timestamptz[], :sent_ats::timestamptz[],
    :states::text[], :state_ats::timestamptz[]
) AS t(connection_id, tenant_id, message_at, sent_at, state, state_at)
ORDER BY connection_id
ON CONFLICT (connection_id) DO UPDATE
SET message_at = greatest(l.message_at, excluded.message_at),
    sent_at = greatest(l.sent_at, excluded.sent_at),
    state = CASE WHEN excluded.state_at >= coalesce(l.state_at, '-infinity') THEN excluded.state ELSE l.state END,
    state_at = greatest(l.state_at, excluded.state_at);

-- name: forget_hours(before)!
DELETE FROM evosense_ops.connection_activity WHERE hour < :before AND hour > '-infinity';

-- name: forget_tenant_counts(tenant_id)!
DELETE FROM evosense_ops.connection_activity WHERE tenant_id = :tenant_id;

-- name: forget_tenant_last(tenant_id)!
DELETE FROM evosense_ops.connection_last WHERE tenant_id = :tenant_id;

-- name: totals(connection_ids)
SELECT connection_id, outcome, sum(count)::bigint AS count
FROM evosense_ops.connection_activity
WHERE connection_id = ANY (:connection_ids::uuid[]) AND hour = '-infinity'
GROUP BY connection_id, outcome;

-- name: last(connection_ids)
SELECT connection_id, message_at, sent_at, state, state_at
FROM evosense_ops.connection_last
WHERE connection_id = ANY (:connection_ids::uuid[]);

-- name: all_time(connection_id)
SELECT NULL AS hour, transport, outcome, kind, reason, count
FROM evosense_ops.connection_activity
WHERE connection_id = :connection_id AND hour = '-infinity'
ORDER BY transport, outcome, kind, reason;

-- name: of_period(connection_id, since, until)
SELECT NULL AS hour, transport, outcome, kind, reason, sum(count)::bigint AS count
FROM evosense_ops.connection_activity
WHERE connection_id = :connection_id AND hour >= :since AND hour < :until
GROUP BY transport, outcome, kind, reason
ORDER BY transport, outcome, kind, reason;

-- name: by_hour(connection_id, since, until, most)
SELECT hour, transport, outcome, kind, reason, count
FROM evosense_ops.connection_activity
WHERE connection_id = :connection_id AND hour >= :since AND hour < :until
ORDER BY hour, transport, outcome, kind, reason
LIMIT :most;
