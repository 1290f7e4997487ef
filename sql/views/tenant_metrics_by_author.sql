-- The same figures, customers and company told apart. positive_pct is of the analysed messages here: what is not yet
-- analysed says nothing about anybody's mood. (tenant_metrics divides by all messages because it is documented so.)
CREATE OR REPLACE VIEW evosense.tenant_metrics_by_author WITH (security_invoker = true) AS
SELECT
    tenant_id,
    author,
    messages AS total_messages,
    (sentiment_sum / nullif(analysed, 0))::double precision AS avg_sentiment,
    satisfaction_sum::numeric / nullif(analysed, 0) AS avg_satisfaction,
    positive * 100.0 / nullif(analysed, 0) AS positive_pct
FROM evosense.metrics_rollup;
