-- The same figures day by day, in the session's time zone; days without messages have no row. An hour belongs to the day
-- in which it begins, which matters where a zone is not whole hours from UTC. positive_pct is of the analysed messages,
-- as in tenant_metrics_by_author.
CREATE OR REPLACE VIEW evosense.tenant_metrics_by_day WITH (security_invoker = true) AS
SELECT
    s.tenant_id,
    (s.since + make_interval(hours => c.hour))::date AS day,
    sum(c.messages)::bigint AS total_messages,
    coalesce(sum(c.messages) FILTER (WHERE c.emotion <> ''), 0)::bigint AS analysed_messages,
    (sum(c.sentiment_sum) * 0.000001 / nullif(sum(c.messages) FILTER (WHERE c.emotion <> ''), 0))::double precision
        AS avg_sentiment,
    sum(c.satisfaction_sum)::numeric / nullif(sum(c.messages) FILTER (WHERE c.emotion <> ''), 0) AS avg_satisfaction,
    sum(c.positive) * 100.0 / nullif(sum(c.messages) FILTER (WHERE c.emotion <> ''), 0) AS positive_pct
FROM evosense.metrics_span AS s
CROSS JOIN LATERAL unnest(s.hours, s.emotions, s.messages, s.sentiment_sums, s.satisfaction_sums, s.positives)
    AS c(hour, emotion, messages, sentiment_sum, satisfaction_sum, positive)
GROUP BY s.tenant_id, (s.since + make_interval(hours => c.hour))::date;
