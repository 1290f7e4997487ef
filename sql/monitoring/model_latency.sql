-- How long the models took in the last 24 hours by the inferences' own time, in milliseconds.
-- Run as a role that sees all tenants (an administrator): the application's role sees its own alone.
SELECT
    i.model_name,
    i.is_shadow,
    count(*) AS inferences,
    round(avg(i.latency_ms)) AS mean,
    round(percentile_cont(0.5) WITHIN GROUP (ORDER BY i.latency_ms)) AS p50,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY i.latency_ms)) AS p95
FROM evosense.experiments_inference i
WHERE i.created_at >= now() - INTERVAL '24 hours'
GROUP BY i.model_name, i.is_shadow
ORDER BY inferences DESC;
