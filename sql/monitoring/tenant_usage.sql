-- Messages and vectors of each tenant.
-- Run as a role that sees all tenants (an administrator): the application's role sees its own alone.
SELECT
    t.name,
    t.plan,
    count(m.id) AS message_count,
    count(m.embedding) AS embedded_count,
    pg_size_pretty(pg_total_relation_size('evosense.messages_message')) AS table_size -- of all tenants together
FROM evosense.tenancy_tenant t
LEFT JOIN evosense.messages_message m ON m.tenant_id = t.id
GROUP BY t.id, t.name, t.plan
ORDER BY message_count DESC;
