-- The same figures day by day, in the session's time zone; days without messages have no row. An hour belongs to the day
-- in which it begins, which matters where a zone is not whole hours from UTC. positive_pct is of the analysed messages,
-- as in tenant_metrics_by_author.
CREATE OR REPLACE VIEW evosense.tenant_metrics_by_day WITH (security_invoker = true) AS
SELECT
    tenant_id,
    hour::date AS day,
    sum(messages)::bigint AS total_messages,
    coalesce(sum(messages) FILTER (WHERE emotion <> ''), 0)::bigint AS analysed_messages,
    (sum(sentiment_sum) / nullif(sum(messages) FILTER (WHERE emotion <> ''), 0))::double precision AS avg_sentiment,
    sum(satisfaction_sum) / nullif(sum(messages) FILTER (WHERE emotion <> ''), 0) AS avg_satisfaction,
    sum(positive) * 100.0 / nullif(sum(messages) FILTER (WHERE emotion <> ''), 0) AS positive_pct
FROM evosense.metrics_hour
GROUP BY tenant_id, hour::date;
