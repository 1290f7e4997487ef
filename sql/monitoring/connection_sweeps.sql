-- How catching up and sweeping of each connection stands: up to when everything was fetched, how many messages nothing
-- but the sweep brought, and what is wrong.
SELECT
    t.name AS tenant,
    s.name AS connection,
    s.swept_until,
    s.found_only_by_sweep,
    s.found_catching_up,
    s.failures,
    s.last_error,
    s.left_out_from,
    s.left_out_until
FROM evosense_ops.connection_sweeps s
LEFT JOIN evosense.tenancy_tenant t ON t.id = s.tenant_id
ORDER BY s.failures DESC, s.found_only_by_sweep DESC, tenant, connection;
