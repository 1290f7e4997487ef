-- The roll-ups behind tenant_metrics, counted at once.
TRUNCATE evosense.metrics_rollup, evosense.metrics_latency;

INSERT INTO evosense.metrics_rollup
SELECT tenant_id, 'customer', count(*), count(sentiment), coalesce(sum(sentiment::numeric), 0),
       coalesce(sum(satisfaction), 0), count(*) FILTER (WHERE sentiment > 0.1)
FROM evosense.messages_message
GROUP BY tenant_id;

INSERT INTO evosense.metrics_latency
SELECT tenant_id, count(*), sum(latency_ms) FROM evosense.experiments_inference GROUP BY tenant_id;
