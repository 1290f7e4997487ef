-- When each active connection last brought a message, and for how long it is used to be without one at this hour of the
-- week. Silent: longer than that. Check the instance's state and webhook in Evolution, and the phone.
-- Run as a role that sees all tenants (an administrator): the application's role sees its own alone.
SELECT
    t.name AS tenant,
    h.name AS connection,
    h.last_message_at,
    date_trunc('second', now() - h.last_message_at) AS quiet_for,
    make_interval(secs => h.expected_gap_seconds) AS expected,
    coalesce(s.silent_since IS NOT NULL, false) OR coalesce(
        now() - h.last_message_at > make_interval(secs => h.expected_gap_seconds), false
    ) AS silent
FROM evosense.connection_habits(now()) h
JOIN evosense.tenancy_tenant t ON t.id = h.tenant_id
LEFT JOIN evosense_ops.connection_sweeps s ON s.tenant_id = h.tenant_id AND s.name = h.name
WHERE h.is_active
ORDER BY silent DESC, quiet_for DESC NULLS LAST, tenant, connection;
