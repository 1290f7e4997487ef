-- How many rows of metrics_hour differ from a count over the messages.
WITH counted AS (
    SELECT m.tenant_id, date_trunc('hour', m.created_at, 'UTC') AS hour, m.connection_id,
           CASE WHEN c.sender IS NULL THEN 'customer' ELSE 'company' END AS author,
           coalesce(m.emotion, '') AS emotion, coalesce(m.tone, '') AS tone, count(*) AS messages,
           coalesce(sum(m.sentiment::numeric), 0) AS sentiment_sum, coalesce(sum(m.satisfaction), 0) AS satisfaction_sum,
           count(*) FILTER (WHERE m.sentiment > 0.1) AS positive
    FROM evosense.messages_message m
    LEFT JOIN evosense.connections_companysender c ON c.connection_id = m.connection_id AND c.sender = m.sender
    GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT count(*)
FROM evosense.metrics_hour h
FULL JOIN counted c ON c.tenant_id = h.tenant_id AND c.hour = h.hour AND c.connection_id = h.connection_id
    AND c.author = h.author AND c.emotion = h.emotion AND c.tone = h.tone
WHERE (c.messages, c.sentiment_sum, c.satisfaction_sum, c.positive)
    IS DISTINCT FROM (h.messages, h.sentiment_sum, h.satisfaction_sum, h.positive);
