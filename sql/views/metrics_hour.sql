-- A tenant's messages by the UTC hour in which they were sent, and by everything that series are divided by: what
-- metrics_span has in arrays. `since`: where the six hours begin with which the hour is kept; a condition on it is
-- answered by index, one on the hour is not.
CREATE OR REPLACE VIEW evosense.metrics_hour WITH (security_invoker = true) AS
SELECT
    s.tenant_id,
    s.since + make_interval(hours => c.hour) AS hour,
    c.connection_id,
    c.author::varchar(8) AS author,
    c.emotion::varchar(40) AS emotion,
    c.tone::varchar(40) AS tone,
    c.messages::bigint AS messages,
    c.sentiment_sum * 0.000001 AS sentiment_sum,
    c.satisfaction_sum::bigint AS satisfaction_sum,
    c.positive::bigint AS positive,
    s.since
FROM evosense.metrics_span AS s
CROSS JOIN LATERAL unnest(
    s.hours, s.connection_ids, s.authors, s.emotions, s.tones, s.messages, s.sentiment_sums, s.satisfaction_sums,
    s.positives
) AS c(hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive);
