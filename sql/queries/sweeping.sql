-- How the sweep of each connection stands: what api/sweeping, api/sweeps and the command line ask.
-- Leases and turns go by the server's clock, and windows of messages by the caller's.

-- name: habits(at)
SELECT tenant_id, name, is_active, registered_at, messages, last_message_at, expected_gap_seconds
FROM evosense.connection_habits(:at);

-- name: known_sweeps()
SELECT connection_id FROM evosense_ops.connection_sweeps;

-- name: put_sweep(connection_id, tenant_id, name, not_before)!
-- Not of a tenant that was erased: a process may still have its key for a while.
INSERT INTO evosense_ops.connection_sweeps (connection_id, tenant_id, name, not_before)
SELECT :connection_id, k.tenant_id, :name, :not_before
FROM evosense_log.tenant_keys k
WHERE k.tenant_id = :tenant_id
ON CONFLICT (connection_id) DO NOTHING;

-- name: erased_tenants()
-- Whose key is gone, and of whom something is kept here.
SELECT t.tenant_id
FROM (
    SELECT tenant_id FROM evosense_ops.connection_sweeps
    UNION SELECT tenant_id FROM evosense_ops.connection_links
    UNION SELECT tenant_id FROM evosense_ops.connection_last
    UNION SELECT tenant_id FROM evosense_ops.model_backlog
    UNION SELECT tenant_id FROM evosense_ops.model_usage
) t
WHERE NOT EXISTS (SELECT FROM evosense_log.tenant_keys k WHERE k.tenant_id = t.tenant_id);

-- name: forget_sweeps(tenant_id)!
DELETE FROM evosense_ops.connection_sweeps WHERE tenant_id = :tenant_id;

-- name: forget_links(tenant_id)!
DELETE FROM evosense_ops.connection_links WHERE tenant_id = :tenant_id;

-- name: forget_backlog(tenant_id)!
DELETE FROM evosense_ops.model_backlog WHERE tenant_id = :tenant_id;

-- name: keep_out(connection_ids, at)!
-- They are inactive: what is sent meanwhile is refused, by the sweep as well, to the minute. An inactive connection is
-- not silent.
UPDATE evosense_ops.connection_sweeps
SET not_before = :at, silent_since = NULL, warned_at = NULL, failures = 0, last_error = NULL
WHERE connection_id = ANY(:connection_ids)
    AND (not_before < :at - INTERVAL '1 minute' OR silent_since IS NOT NULL OR last_error IS NOT NULL);

-- name: all_due(connection_ids)!
-- A process begins: whatever was missed while none ran is caught up at once.
UPDATE evosense_ops.connection_sweeps
SET next_due_at = clock_timestamp(), catch_up = true
WHERE connection_id = ANY(:connection_ids);

-- name: wake(connection_id)!
UPDATE evosense_ops.connection_sweeps
SET next_due_at = clock_timestamp(), catch_up = true
WHERE connection_id = :connection_id;

-- name: due(connection_ids)
SELECT connection_id
FROM evosense_ops.connection_sweeps
WHERE connection_id = ANY(:connection_ids) AND next_due_at <= clock_timestamp()
    AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
ORDER BY next_due_at, connection_id;

-- name: claim(connection_id, holder, lease)^
-- Nothing where another process was faster.
WITH was AS (
    SELECT connection_id, catch_up
    FROM evosense_ops.connection_sweeps
    WHERE connection_id = :connection_id AND next_due_at <= clock_timestamp()
        AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
    FOR UPDATE SKIP LOCKED
)
UPDATE evosense_ops.connection_sweeps s
SET claimed_by = :holder, claimed_until = clock_timestamp() + make_interval(secs => :lease),
    last_started_at = clock_timestamp(), catch_up = false
FROM was
WHERE s.connection_id = was.connection_id
RETURNING s.not_before, s.swept_until, s.deep_at, was.catch_up, s.failures, s.last_error;

-- name: leave_out(connection_id, since, until)!
UPDATE evosense_ops.connection_sweeps
SET left_out_from = least(left_out_from, :since), left_out_until = greatest(left_out_until, :until)
WHERE connection_id = :connection_id;

-- name: filled(connection_id, since, until)!
-- A backfill fetched what was left out.
UPDATE evosense_ops.connection_sweeps
SET left_out_from = NULL, left_out_until = NULL
WHERE connection_id = :connection_id AND left_out_from >= :since AND left_out_until <= :until;

-- name: advance(connection_id, holder, lease, swept_until, seen, found, caught)$
-- Up to there everything is recorded. NULL where the connection is another process's by now.
UPDATE evosense_ops.connection_sweeps
SET swept_until = greatest(swept_until, :swept_until), rows_seen = rows_seen + :seen,
    found_only_by_sweep = found_only_by_sweep + :found, found_catching_up = found_catching_up + :caught,
    claimed_until = clock_timestamp() + make_interval(secs => :lease)
WHERE connection_id = :connection_id AND claimed_by = :holder
RETURNING true;

-- name: ended(connection_id, holder, pause, deep_at)!
-- It went well. Who was woken meanwhile is due again at once.
UPDATE evosense_ops.connection_sweeps
SET claimed_by = NULL, claimed_until = NULL, last_ended_at = clock_timestamp(), failures = 0, last_error = NULL,
    deep_at = coalesce(:deep_at, deep_at),
    next_due_at = clock_timestamp() + CASE WHEN catch_up THEN INTERVAL '0' ELSE make_interval(secs => :pause) END
WHERE connection_id = :connection_id AND claimed_by = :holder;

-- name: failed(connection_id, holder, pause, error, catch_up)!
UPDATE evosense_ops.connection_sweeps
SET claimed_by = NULL, claimed_until = NULL, failures = failures + 1, last_error = :error,
    next_due_at = clock_timestamp() + make_interval(secs => :pause), catch_up = catch_up OR :catch_up
WHERE connection_id = :connection_id AND claimed_by = :holder;

-- name: put_off(connection_ids, pause)!
-- Their server does not answer, as another connection's turn has shown: each would keep one waiting for nothing.
UPDATE evosense_ops.connection_sweeps
SET next_due_at = clock_timestamp() + make_interval(secs => :pause)
WHERE connection_id = ANY(:connection_ids) AND next_due_at <= clock_timestamp()
    AND (claimed_until IS NULL OR claimed_until <= clock_timestamp());

-- name: release(holder)!
-- A process ends: others need not wait.
UPDATE evosense_ops.connection_sweeps
SET claimed_by = NULL, claimed_until = NULL, next_due_at = clock_timestamp(), catch_up = true
WHERE claimed_by = :holder;

-- name: heard(connection_ids, last_message_ats, gaps)!
-- What the look at the habits found.
UPDATE evosense_ops.connection_sweeps s
SET last_message_at = found.last_message_at, expected_gap_seconds = found.gap
FROM unnest(:connection_ids::uuid[], :last_message_ats::timestamptz[], :gaps::bigint[])
    AS found(connection_id, last_message_at, gap)
WHERE s.connection_id = found.connection_id
    AND (s.last_message_at, s.expected_gap_seconds) IS DISTINCT FROM (found.last_message_at, found.gap);

-- name: raise_silence(connection_id, since, at)$
-- True for the one process that has to say it.
UPDATE evosense_ops.connection_sweeps
SET silent_since = :since, warned_at = :at
WHERE connection_id = :connection_id AND silent_since IS NULL
RETURNING true;

-- name: lift_silence(connection_id, last_message_at)$
UPDATE evosense_ops.connection_sweeps
SET silent_since = NULL, warned_at = NULL
WHERE connection_id = :connection_id AND silent_since < :last_message_at
RETURNING true;

-- name: standings(tenant_id)
-- Of one tenant or, with NULL, of all.
SELECT connection_id, tenant_id, name, swept_until, last_started_at, last_ended_at, next_due_at, rows_seen,
    found_only_by_sweep, found_catching_up, failures, last_error, left_out_from, left_out_until, last_message_at,
    expected_gap_seconds, silent_since, warned_at
FROM evosense_ops.connection_sweeps
WHERE :tenant_id::uuid IS NULL OR tenant_id = :tenant_id::uuid
ORDER BY name, connection_id;

-- name: overdue(connection_ids)^
-- How many of these have waited for over two minutes and are in no process's hand, or are not known to any; how many are
-- in one's hand, and the last time that one was begun with.
SELECT
    cardinality(:connection_ids::uuid[]) - count(*) FILTER (
        WHERE s.next_due_at > clock_timestamp() - INTERVAL '2 minutes' OR s.claimed_until > clock_timestamp()
    ) AS overdue,
    count(*) FILTER (WHERE s.claimed_until > clock_timestamp()) AS in_hand,
    max(s.last_started_at) AS last_started_at
FROM evosense_ops.connection_sweeps s
WHERE s.connection_id = ANY(:connection_ids::uuid[]);
