-- name: count_messages(message_ids, tenant_ids, authors, sentiments, satisfactions, emotions, hours, connection_ids, tones)!
INSERT INTO evosense.metrics_message (
    message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
)
SELECT message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
FROM unnest(
    :message_ids::bigint[], :tenant_ids::uuid[], :authors::text[], :sentiments::float8[], :satisfactions::int[],
    :emotions::text[], :hours::int[], :connection_ids::bigint[], :tones::text[]
) AS t(message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone);

-- name: load_messages#
COPY evosense.metrics_message (
    message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
) FROM STDIN (FORMAT binary);

-- name: recount(message_ids, sentiments, satisfactions, emotions, tones)
-- Answers with what the messages counted as until now. A message that is not counted, as retention has deleted it,
-- stays so. One that waits for its analysis again, as its text has changed, comes with '' for emotion and tone.
UPDATE evosense.metrics_message AS c
SET sentiment = n.sentiment, satisfaction = n.satisfaction, emotion = nullif(n.emotion, ''), tone = nullif(n.tone, '')
FROM unnest(
    :message_ids::bigint[], :sentiments::float8[], :satisfactions::int[], :emotions::text[], :tones::text[]
) AS n(message_id, sentiment, satisfaction, emotion, tone)
JOIN evosense.metrics_message AS before ON before.message_id = n.message_id
WHERE c.message_id = n.message_id
RETURNING before.message_id, before.tenant_id, before.author, before.sentiment, before.satisfaction, before.emotion,
    before.hour, before.connection_id, before.tone;

-- name: add_to_rollup(tenant_ids, authors, messages, analysed, sentiment_sums, satisfaction_sums, positives)!
INSERT INTO evosense.metrics_rollup AS r (
    tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive
)
SELECT tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive
FROM unnest(
    :tenant_ids::uuid[], :authors::text[], :messages::bigint[], :analysed::bigint[], :sentiment_sums::numeric[],
    :satisfaction_sums::bigint[], :positives::bigint[]
) AS t(tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive)
ON CONFLICT (tenant_id, author) DO UPDATE
SET messages = r.messages + excluded.messages,
    analysed = r.analysed + excluded.analysed,
    sentiment_sum = r.sentiment_sum + excluded.sentiment_sum,
    satisfaction_sum = r.satisfaction_sum + excluded.satisfaction_sum,
    positive = r.positive + excluded.positive;

-- name: add_to_emotions(tenant_ids, authors, emotions, messages)!
-- A count that falls to nothing leaves no row, as if it had never been: batches of any size end alike.
WITH added AS (
    SELECT tenant_id, author, emotion, messages
    FROM unnest(:tenant_ids::uuid[], :authors::text[], :emotions::text[], :messages::bigint[])
        AS t(tenant_id, author, emotion, messages)
), gone AS (
    DELETE FROM evosense.metrics_emotion AS r
    USING added AS a
    WHERE r.tenant_id = a.tenant_id AND r.author = a.author AND r.emotion = a.emotion AND r.messages + a.messages = 0
    RETURNING r.tenant_id, r.author, r.emotion
)
INSERT INTO evosense.metrics_emotion AS r (tenant_id, author, emotion, messages)
SELECT tenant_id, author, emotion, messages
FROM added AS a
WHERE NOT EXISTS (
    SELECT FROM gone AS g WHERE g.tenant_id = a.tenant_id AND g.author = a.author AND g.emotion = a.emotion
)
ON CONFLICT (tenant_id, author, emotion) DO UPDATE SET messages = r.messages + excluded.messages;

-- name: add_to_latency(tenant_ids, inferences, latency_ms_sums)!
INSERT INTO evosense.metrics_latency AS r (tenant_id, inferences, latency_ms_sum)
SELECT tenant_id, inferences, latency_ms_sum
FROM unnest(:tenant_ids::uuid[], :inferences::bigint[], :latency_ms_sums::bigint[])
    AS t(tenant_id, inferences, latency_ms_sum)
ON CONFLICT (tenant_id) DO UPDATE
SET inferences = r.inferences + excluded.inferences, latency_ms_sum = r.latency_ms_sum + excluded.latency_ms_sum;

-- name: add_to_hours(tenant_ids, hours, connection_ids, authors, emotions, tones, messages, sentiments, satisfaction_sums, positives)!
-- Where no message leaves a row, which then needs no looking at. Sentiments in millionths.
INSERT INTO evosense.metrics_hour AS r (
    tenant_id, hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive
)
SELECT tenant_id, to_timestamp(3600.0 * hour), connection_id, author, emotion, tone, messages,
       sentiment * 0.000001, satisfaction_sum, positive
FROM unnest(
    :tenant_ids::uuid[], :hours::int[], :connection_ids::bigint[], :authors::text[], :emotions::text[],
    :tones::text[], :messages::bigint[], :sentiments::bigint[], :satisfaction_sums::bigint[], :positives::bigint[]
) AS t(tenant_id, hour, connection_id, author, emotion, tone, messages, sentiment, satisfaction_sum, positive)
ON CONFLICT (tenant_id, hour, connection_id, author, emotion, tone) DO UPDATE
SET messages = r.messages + excluded.messages,
    sentiment_sum = r.sentiment_sum + excluded.sentiment_sum,
    satisfaction_sum = r.satisfaction_sum + excluded.satisfaction_sum,
    positive = r.positive + excluded.positive;

-- name: take_from_hours(tenant_ids, hours, connection_ids, authors, emotions, tones, messages, sentiments, satisfaction_sums, positives)!
-- Where messages leave. What falls to nothing leaves no row, as with emotions.
WITH added AS (
    SELECT tenant_id, to_timestamp(3600.0 * hour) AS hour, connection_id, author, emotion, tone, messages,
           sentiment * 0.000001 AS sentiment_sum, satisfaction_sum, positive
    FROM unnest(
        :tenant_ids::uuid[], :hours::int[], :connection_ids::bigint[], :authors::text[], :emotions::text[],
        :tones::text[], :messages::bigint[], :sentiments::bigint[], :satisfaction_sums::bigint[], :positives::bigint[]
    ) AS t(tenant_id, hour, connection_id, author, emotion, tone, messages, sentiment, satisfaction_sum, positive)
), gone AS (
    DELETE FROM evosense.metrics_hour AS r
    USING added AS a
    WHERE r.tenant_id = a.tenant_id AND r.hour = a.hour AND r.connection_id = a.connection_id
      AND r.author = a.author AND r.emotion = a.emotion AND r.tone = a.tone AND r.messages + a.messages = 0
    RETURNING r.tenant_id, r.hour, r.connection_id, r.author, r.emotion, r.tone
)
INSERT INTO evosense.metrics_hour AS r (
    tenant_id, hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive
)
SELECT tenant_id, hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive
FROM added AS a
WHERE NOT EXISTS (
    SELECT FROM gone AS g
    WHERE g.tenant_id = a.tenant_id AND g.hour = a.hour AND g.connection_id = a.connection_id
      AND g.author = a.author AND g.emotion = a.emotion AND g.tone = a.tone
)
ON CONFLICT (tenant_id, hour, connection_id, author, emotion, tone) DO UPDATE
SET messages = r.messages + excluded.messages,
    sentiment_sum = r.sentiment_sum + excluded.sentiment_sum,
    satisfaction_sum = r.satisfaction_sum + excluded.satisfaction_sum,
    positive = r.positive + excluded.positive;

-- name: add_to_latency_hours(tenant_ids, hours, models, shadows, buckets, inferences, latency_ms_sums)!
INSERT INTO evosense.metrics_latency_hour AS r (
    tenant_id, hour, model_name, is_shadow, bucket, inferences, latency_ms_sum
)
SELECT tenant_id, to_timestamp(3600.0 * hour), model_name, is_shadow, bucket, inferences, latency_ms_sum
FROM unnest(
    :tenant_ids::uuid[], :hours::int[], :models::text[], :shadows::boolean[], :buckets::smallint[],
    :inferences::bigint[], :latency_ms_sums::bigint[]
) AS t(tenant_id, hour, model_name, is_shadow, bucket, inferences, latency_ms_sum)
ON CONFLICT (tenant_id, hour, model_name, is_shadow, bucket) DO UPDATE
SET inferences = r.inferences + excluded.inferences, latency_ms_sum = r.latency_ms_sum + excluded.latency_ms_sum;

-- name: tenant_metrics()^
SELECT tenant_id, tenant_name, plan, total_messages, avg_sentiment, avg_satisfaction, positive_pct, messages_today,
    active_connections, avg_latency_ms
FROM evosense.tenant_metrics;

-- name: by_author()
SELECT author, total_messages, avg_sentiment, avg_satisfaction, positive_pct
FROM evosense.tenant_metrics_by_author
ORDER BY author DESC;

-- name: emotions()
SELECT author, emotion, messages FROM evosense.metrics_emotion WHERE messages > 0 ORDER BY messages DESC, author, emotion;

-- name: local_days(tz, since, until)
-- Where days begin in a time zone: those that the period touches, as many before them, and where the last one ends.
WITH span AS (
    SELECT date_trunc('day', :since::timestamptz AT TIME ZONE :tz::text) AS first,
           :until::timestamptz AT TIME ZONE :tz::text AS last
), counted AS (
    SELECT first, ceil(extract(epoch FROM last - first) / 86400)::int AS days FROM span
)
SELECT (first + make_interval(days => n))::date AS day,
       (first + make_interval(days => n)) AT TIME ZONE :tz::text AS start
FROM counted, generate_series(-days, days) AS n
ORDER BY n;

-- name: series(bounds, since, until, by)
-- Bucket 0 is what lies before the first bound: the previous period.
SELECT
    width_bucket(hour, :bounds::timestamptz[]) AS bucket,
    CASE :by::text
        WHEN 'connection' THEN connection_id::text
        WHEN 'emotion' THEN emotion
        WHEN 'tone' THEN tone
        WHEN 'author' THEN author
    END AS key,
    sum(messages)::bigint AS messages,
    coalesce(sum(messages) FILTER (WHERE emotion <> ''), 0)::bigint AS analysed,
    sum(sentiment_sum) AS sentiment_sum,
    sum(satisfaction_sum)::bigint AS satisfaction_sum,
    sum(positive)::bigint AS positive
FROM evosense.metrics_hour
WHERE hour >= :since AND hour < :until
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: chats(since, until, sort, most)
-- Reads the period's messages by idx_message_tenant_created.
SELECT
    chat_id,
    count(*) AS messages,
    count(sentiment) AS analysed,
    avg(sentiment) AS avg_sentiment,
    avg(satisfaction)::float8 AS avg_satisfaction,
    (100.0 * count(*) FILTER (WHERE sentiment > 0.1) / nullif(count(sentiment), 0))::float8 AS positive_pct,
    max(created_at) AS last_message_at
FROM evosense.messages_message
WHERE created_at >= :since AND created_at < :until
GROUP BY chat_id
ORDER BY CASE WHEN :sort::text = 'sentiment' THEN avg(sentiment) END NULLS LAST, count(*) DESC, chat_id
LIMIT :most;

-- name: latency(before, since, until)
SELECT model_name, is_shadow, hour < :since AS previous, bucket, sum(inferences)::bigint AS inferences,
       sum(latency_ms_sum)::bigint AS latency_ms_sum
FROM evosense.metrics_latency_hour
WHERE hour >= :before AND hour < :until
GROUP BY model_name, is_shadow, hour < :since, bucket
ORDER BY model_name, is_shadow, previous, bucket;
