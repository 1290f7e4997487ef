-- The documented names, order and types from totals that the projector keeps: right numbers (the documented joins
-- multiply them) at a cost that does not grow with history. Changes go in by CREATE OR REPLACE: grants then stay.
CREATE OR REPLACE VIEW evosense.tenant_metrics WITH (security_invoker = true) AS
SELECT
    t.id AS tenant_id,
    t.name AS tenant_name,
    t.plan,
    coalesce(r.messages, 0)::bigint AS total_messages,
    (r.sentiment_sum / nullif(r.analysed, 0))::double precision AS avg_sentiment,
    r.satisfaction_sum / nullif(r.analysed, 0) AS avg_satisfaction,
    -- Of all messages, analysed or not, as documented; NULL where there is none.
    r.positive * 100.0 / nullif(r.messages, 0) AS positive_pct,
    -- Today in the session's time zone, as documented; counted by idx_message_tenant_created.
    (
        SELECT count(*)
        FROM evosense.messages_message m
        WHERE m.tenant_id = t.id AND m.created_at >= CURRENT_DATE
    ) AS messages_today,
    (
        SELECT count(*)
        FROM evosense.connections_evolutionconnection c
        WHERE c.tenant_id = t.id AND c.is_active
    ) AS active_connections,
    l.latency_ms_sum::numeric / nullif(l.inferences, 0) AS avg_latency_ms
FROM evosense.tenancy_tenant t
LEFT JOIN (
    SELECT tenant_id, sum(messages) AS messages, sum(analysed) AS analysed, sum(sentiment_sum) AS sentiment_sum,
           sum(satisfaction_sum) AS satisfaction_sum, sum(positive) AS positive
    FROM evosense.metrics_rollup
    GROUP BY tenant_id
) r ON r.tenant_id = t.id
LEFT JOIN evosense.metrics_latency l ON l.tenant_id = t.id
-- With evosense.all_tenants the list of tenants is open, but not their figures: show no zeros that aren't true.
WHERE current_setting('evosense.all_tenants', true) IS DISTINCT FROM 'on'
   OR t.id = nullif(current_setting('evosense.tenant_id', true), '')::uuid;

COMMENT ON VIEW evosense.tenant_metrics IS 'Documented metrics of each tenant; messages of customers and company';
