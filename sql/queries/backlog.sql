-- What waits for models behind servers: what api/backlog and the command line ask. Leases and turns go by the server's
-- clock.

-- name: put(message_ids, wants, tenant_ids, positions, event_types)!
-- A later event asks anew: due at once, whatever was put off, and another tries. Who has it in hand keeps it, and what
-- comes of that counts; it will not take away a row whose position has moved. Not of a tenant that was erased: a process
-- may still have its key for a while. Always in the same order: two who wait for one another would be a deadlock.
INSERT INTO evosense_ops.model_backlog AS b (message_id, wants, tenant_id, position, event_type)
SELECT t.message_id, t.wants, t.tenant_id, t.position, t.event_type
FROM unnest(:message_ids::uuid[], :wants::text[], :tenant_ids::uuid[], :positions::bigint[], :event_types::text[])
    AS t(message_id, wants, tenant_id, position, event_type)
WHERE EXISTS (SELECT FROM evosense_log.tenant_keys k WHERE k.tenant_id = t.tenant_id)
ORDER BY t.message_id, t.wants
ON CONFLICT (message_id, wants) DO UPDATE SET
    position = excluded.position, event_type = excluded.event_type, due_at = clock_timestamp(), attempts = 0,
    unavailable = 0, reason = NULL, reason_at = NULL
WHERE b.position < excluded.position;

-- name: tenants(wants)
-- Those that have something that is due and in nobody's hand. A walk from tenant to tenant along the index, as one of
-- them may have very much; of an erased one nothing is asked.
WITH RECURSIVE waiting AS (
    (
        SELECT tenant_id FROM evosense_ops.model_backlog WHERE wants = :wants ORDER BY tenant_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT b.tenant_id FROM evosense_ops.model_backlog b
        WHERE b.wants = :wants AND b.tenant_id > waiting.tenant_id
        ORDER BY b.tenant_id LIMIT 1
    )
    FROM waiting
    WHERE waiting.tenant_id IS NOT NULL
)
SELECT w.tenant_id
FROM waiting w
WHERE EXISTS (SELECT FROM evosense_log.tenant_keys k WHERE k.tenant_id = w.tenant_id)
    AND EXISTS (
        SELECT FROM evosense_ops.model_backlog b
        WHERE b.wants = :wants AND b.tenant_id = w.tenant_id AND b.due_at <= clock_timestamp()
            AND (b.claimed_until IS NULL OR b.claimed_until <= clock_timestamp())
    );

-- name: claim_oldest(tenant_id, wants, most, holder, lease)
-- The lease is renewed while the model is asked; one that has run out is anybody's.
WITH free AS (
    SELECT message_id, wants
    FROM evosense_ops.model_backlog
    WHERE wants = :wants AND tenant_id = :tenant_id AND due_at <= clock_timestamp()
        AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
    ORDER BY position
    LIMIT :most
    FOR UPDATE SKIP LOCKED
)
UPDATE evosense_ops.model_backlog b
SET claimed_by = :holder, claimed_until = clock_timestamp() + make_interval(secs => :lease)
FROM free
WHERE b.message_id = free.message_id AND b.wants = free.wants
RETURNING b.message_id, b.wants, b.tenant_id, b.position, b.event_type, b.attempts, b.unavailable;

-- name: claim_newest(tenant_id, wants, most, holder, lease)
WITH free AS (
    SELECT message_id, wants
    FROM evosense_ops.model_backlog
    WHERE wants = :wants AND tenant_id = :tenant_id AND due_at <= clock_timestamp()
        AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
    ORDER BY position DESC
    LIMIT :most
    FOR UPDATE SKIP LOCKED
)
UPDATE evosense_ops.model_backlog b
SET claimed_by = :holder, claimed_until = clock_timestamp() + make_interval(secs => :lease)
FROM free
WHERE b.message_id = free.message_id AND b.wants = free.wants
RETURNING b.message_id, b.wants, b.tenant_id, b.position, b.event_type, b.attempts, b.unavailable;

-- name: renew(message_ids, wants, holder, lease)!
-- Rows are locked in the order of `put` by whoever changes several.
WITH ours AS (
    SELECT b.message_id, b.wants
    FROM evosense_ops.model_backlog b
    JOIN unnest(:message_ids::uuid[], :wants::text[]) AS t(message_id, wants) USING (message_id, wants)
    WHERE b.claimed_by = :holder
    ORDER BY b.message_id, b.wants
    FOR UPDATE OF b
)
UPDATE evosense_ops.model_backlog b
SET claimed_until = clock_timestamp() + make_interval(secs => :lease)
FROM ours
WHERE b.message_id = ours.message_id AND b.wants = ours.wants;

-- name: done(message_ids, wants, positions)!
-- Nothing is owed any more: unless an event has asked since.
WITH answered AS (
    SELECT b.message_id, b.wants
    FROM evosense_ops.model_backlog b
    JOIN unnest(:message_ids::uuid[], :wants::text[], :positions::bigint[]) AS t(message_id, wants, position)
        USING (message_id, wants, position)
    ORDER BY b.message_id, b.wants
    FOR UPDATE OF b
)
DELETE FROM evosense_ops.model_backlog b
USING answered
WHERE b.message_id = answered.message_id AND b.wants = answered.wants;

-- name: release(message_ids, wants, holder)!
-- Out of this hand, and as it was otherwise.
WITH ours AS (
    SELECT b.message_id, b.wants
    FROM evosense_ops.model_backlog b
    JOIN unnest(:message_ids::uuid[], :wants::text[]) AS t(message_id, wants) USING (message_id, wants)
    WHERE b.claimed_by = :holder
    ORDER BY b.message_id, b.wants
    FOR UPDATE OF b
)
UPDATE evosense_ops.model_backlog b
SET claimed_by = NULL, claimed_until = NULL
FROM ours
WHERE b.message_id = ours.message_id AND b.wants = ours.wants;

-- name: postpone(message_ids, wants, positions, pauses, failed, reason, holder)!
-- Not to be asked about for so many seconds. Where an event has asked since, it stays due.
WITH ours AS (
    SELECT b.message_id, b.wants, b.position = t.position AS still, t.pause
    FROM evosense_ops.model_backlog b
    JOIN unnest(:message_ids::uuid[], :wants::text[], :positions::bigint[], :pauses::float[])
        AS t(message_id, wants, position, pause) USING (message_id, wants)
    WHERE b.claimed_by = :holder
    ORDER BY b.message_id, b.wants
    FOR UPDATE OF b
)
UPDATE evosense_ops.model_backlog b
SET claimed_by = NULL, claimed_until = NULL, reason = :reason, reason_at = clock_timestamp(),
    due_at = CASE WHEN ours.still THEN clock_timestamp() + make_interval(secs => ours.pause) ELSE b.due_at END,
    attempts = b.attempts + CASE WHEN :failed AND ours.still THEN 1 ELSE 0 END,
    unavailable = b.unavailable + CASE WHEN :failed THEN 0 ELSE 1 END
FROM ours
WHERE b.message_id = ours.message_id AND b.wants = ours.wants;

-- name: waiting()
-- How many of each tenant's messages wait for what, since when, and why those were put off that were.
SELECT tenant_id, wants, count(*) AS messages, min(queued_at) AS since,
    extract(epoch FROM clock_timestamp() - min(queued_at))::float AS seconds,
    count(*) FILTER (WHERE claimed_until > clock_timestamp()) AS in_hand,
    (array_agg(reason ORDER BY reason_at DESC NULLS LAST))[1] AS reason
FROM evosense_ops.model_backlog
GROUP BY tenant_id, wants
ORDER BY min(queued_at), tenant_id, wants;

-- name: earlier(tenant_id, messages, chats, sent, most)
SELECT message_id, place, text
FROM evosense.earlier_texts(:tenant_id, :messages::bigint[], :chats::text[], :sent::timestamptz[], :most);
