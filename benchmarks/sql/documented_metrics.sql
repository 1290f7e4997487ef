-- The documented view to the letter over our tables, and what it means, counted rightly by sub-queries: a full count.
CREATE SCHEMA documented;

CREATE VIEW documented.tenant_metrics AS
SELECT
    t.id as tenant_id,
    t.name as tenant_name,
    t.plan,
    COUNT(m.id) as total_messages,
    AVG(m.sentiment) as avg_sentiment,
    AVG(m.satisfaction) as avg_satisfaction,
    COUNT(CASE WHEN m.sentiment > 0.1 THEN 1 END) * 100.0 / COUNT(m.id) as positive_pct,
    COUNT(CASE WHEN m.created_at >= CURRENT_DATE THEN 1 END) as messages_today,
    COUNT(DISTINCT c.id) as active_connections,
    AVG(i.latency_ms) as avg_latency_ms
FROM evosense.tenancy_tenant t
LEFT JOIN evosense.messages_message m ON t.id = m.tenant_id
LEFT JOIN evosense.connections_evolutionconnection c ON t.id = c.tenant_id AND c.is_active = true
LEFT JOIN evosense.experiments_inference i ON t.id = i.tenant_id
GROUP BY t.id, t.name, t.plan;

CREATE VIEW documented.tenant_metrics_counted AS
SELECT
    t.id AS tenant_id,
    t.name AS tenant_name,
    t.plan,
    m.total_messages,
    m.avg_sentiment,
    m.avg_satisfaction,
    m.positive_pct,
    m.messages_today,
    (
        SELECT count(*) FROM evosense.connections_evolutionconnection c WHERE c.tenant_id = t.id AND c.is_active
    ) AS active_connections,
    (SELECT avg(i.latency_ms) FROM evosense.experiments_inference i WHERE i.tenant_id = t.id) AS avg_latency_ms
FROM evosense.tenancy_tenant t
CROSS JOIN LATERAL (
    SELECT count(*) AS total_messages,
           avg(m.sentiment::numeric)::float8 AS avg_sentiment,
           avg(m.satisfaction) AS avg_satisfaction,
           count(*) FILTER (WHERE m.sentiment > 0.1) * 100.0 / nullif(count(*), 0) AS positive_pct,
           count(*) FILTER (WHERE m.created_at >= CURRENT_DATE) AS messages_today
    FROM evosense.messages_message m
    WHERE m.tenant_id = t.id
) m;
