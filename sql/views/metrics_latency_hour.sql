-- How long a tenant's models took: a histogram for each UTC hour, from which medians and percentiles are read. What
-- metrics_latency_span has in arrays. `since` as in metrics_hour.
CREATE OR REPLACE VIEW evosense.metrics_latency_hour WITH (security_invoker = true) AS
SELECT
    s.tenant_id,
    s.since + make_interval(hours => c.hour) AS hour,
    s.model_name,
    s.is_shadow,
    c.bucket,
    c.inferences::bigint AS inferences,
    c.latency_ms_sum,
    s.since
FROM evosense.metrics_latency_span AS s
CROSS JOIN LATERAL unnest(s.hours, s.buckets, s.inferences, s.latency_ms_sums)
    AS c(hour, bucket, inferences, latency_ms_sum);
