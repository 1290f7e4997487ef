-- For how long each connection is used to be without a message, seen from a moment (docs/catching-up.md): in each of
-- the last four weeks, at this hour of the week, the one before and the one after, it is looked how long the connection
-- had been quiet. The longest of these and an hour, and half as much again, is expected. Where fewer than two weeks can
-- be asked, the longest gap of all counts. NULL below 50 messages or a week. Weeks are counted in UTC, and hours as
-- metrics_hour has them. What lies in the silence that is going on is not asked: it must not become a habit.
--
-- The spans that hours are kept in have all of a tenant's connections, so each is read once, for all of them.
--
-- SECURITY DEFINER, as the writer sees no table of the read models; it answers with names, times and numbers alone.
CREATE OR REPLACE FUNCTION evosense.connection_habits(p_at timestamptz)
RETURNS TABLE (
    tenant_id uuid,
    name text,
    is_active boolean,
    registered_at timestamptz,
    messages bigint,
    last_message_at timestamptz,
    expected_gap_seconds bigint
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH active AS (
        SELECT h.tenant_id, h.connection_id, h.hour, sum(h.messages) AS messages,
            max(h.hour) OVER (PARTITION BY h.tenant_id, h.connection_id) AS last_hour
        FROM evosense.metrics_hour h
        -- The five weeks before the last hour, which is of the last eight weeks.
        WHERE h.hour > p_at - INTERVAL '91 days' AND h.hour <= p_at
            -- The same for the spans that hours are kept in, by which they are found.
            AND h.since > p_at - INTERVAL '91 days 6 hours' AND h.since <= p_at
        GROUP BY h.tenant_id, h.connection_id, h.hour
    ),
    known AS MATERIALIZED (
        SELECT a.tenant_id, a.connection_id, array_agg(a.hour ORDER BY a.hour) AS hours, sum(a.messages) AS messages,
            min(a.hour) AS first_hour, max(a.hour) AS last_hour
        FROM active a
        WHERE a.last_hour > p_at - INTERVAL '56 days' AND a.hour > a.last_hour - INTERVAL '35 days'
        GROUP BY a.tenant_id, a.connection_id
    )
    SELECT c.tenant_id, c.name::text, c.is_active, c.created_at, coalesce(known.messages, 0)::bigint, newest.at,
        CASE WHEN known.messages >= 50 AND known.first_hour <= known.last_hour - INTERVAL '7 days'
            THEN round(1.5 * extract(epoch FROM INTERVAL '1 hour' + coalesce(sampled.quiet, longest.quiet)))::bigint
        END
    FROM evosense.connections_evolutionconnection c
    LEFT JOIN known ON known.tenant_id = c.tenant_id AND known.connection_id = c.id
    CROSS JOIN LATERAL (
        SELECT max(m.created_at) AS at
        FROM evosense.messages_message m
        WHERE m.tenant_id = c.tenant_id AND m.connection_id = c.id
            AND m.created_at >= known.last_hour AND m.created_at <= p_at
    ) newest
    CROSS JOIN LATERAL (
        SELECT CASE WHEN count(DISTINCT asked.week) >= 2 THEN max(asked.quiet) END AS quiet
        FROM (
            SELECT w.week, greatest(
                w.moment - (SELECT max(a.hour) FROM unnest(known.hours) a(hour) WHERE a.hour <= w.moment)
                    - INTERVAL '1 hour',
                INTERVAL '0'
            ) AS quiet
            FROM (
                SELECT week, p_at - week * INTERVAL '7 days' + shift * INTERVAL '1 hour' AS moment
                FROM generate_series(1, 4) AS week, generate_series(-1, 1) AS shift
            ) w
            WHERE w.moment BETWEEN known.first_hour AND known.last_hour + INTERVAL '1 hour'
        ) asked
    ) sampled
    CROSS JOIN LATERAL (
        SELECT coalesce(max(gap.quiet), INTERVAL '0') AS quiet
        FROM (
            SELECT lead(a.hour) OVER (ORDER BY a.hour) - a.hour - INTERVAL '1 hour' AS quiet
            FROM unnest(known.hours) a(hour)
        ) gap
    ) longest
    ORDER BY c.id
$$;
