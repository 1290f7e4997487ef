-- name: load_messages#
COPY evosense.metrics_message (
    message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
) FROM STDIN (FORMAT binary);

-- name: count(tenant_ids, emotion_names, tone_names, store, message_ids, tenants, companies, hours, connection_ids, sentiments, satisfactions, emotions, tones, again_ids, again_sentiments, again_satisfactions, again_emotions, again_tones)$
-- A batch: new messages, and what became known of earlier ones. Tenants, emotions and tones of the columns are places
-- in the arrays of their names. `store`: new messages are not in metrics_message yet. Answers whether some emotion has
-- lost messages: `forget_emotions` is due then. An earlier message that is not counted, as retention has deleted it,
-- stays so.
WITH received AS MATERIALIZED (
    SELECT t.message_id, (:tenant_ids::uuid[])[t.tenant] AS tenant_id,
           CASE WHEN t.company THEN 'company' ELSE 'customer' END AS author, t.sentiment, t.satisfaction,
           (:emotion_names::text[])[t.emotion] AS emotion, t.hour, t.connection_id,
           (:tone_names::text[])[t.tone] AS tone
    FROM unnest(
        :message_ids::bigint[], :tenants::int[], :companies::boolean[], :hours::int[], :connection_ids::bigint[],
        :sentiments::float8[], :satisfactions::int[], :emotions::int[], :tones::int[]
    ) AS t(message_id, tenant, company, hour, connection_id, sentiment, satisfaction, emotion, tone)
), stored AS (
    INSERT INTO evosense.metrics_message (
        message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
    )
    SELECT message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
    FROM received
    WHERE :store::boolean
), recounted AS (
    UPDATE evosense.metrics_message AS c
    SET sentiment = n.sentiment, satisfaction = n.satisfaction, emotion = (:emotion_names::text[])[n.emotion],
        tone = (:tone_names::text[])[n.tone]
    FROM unnest(
        :again_ids::bigint[], :again_sentiments::float8[], :again_satisfactions::int[], :again_emotions::int[],
        :again_tones::int[]
    ) AS n(message_id, sentiment, satisfaction, emotion, tone)
    JOIN evosense.metrics_message AS before ON before.message_id = n.message_id
    WHERE c.message_id = n.message_id
    RETURNING c.tenant_id, c.hour, c.connection_id, c.author, c.sentiment, c.satisfaction, c.emotion, c.tone,
        before.sentiment AS sentiment_before, before.satisfaction AS satisfaction_before,
        before.emotion AS emotion_before, before.tone AS tone_before
), change AS (
    SELECT tenant_id, hour, connection_id, author, emotion, tone, sentiment, satisfaction, 1 AS n FROM received
    UNION ALL
    SELECT tenant_id, hour, connection_id, author, emotion, tone, sentiment, satisfaction, 1 FROM recounted
    UNION ALL
    SELECT tenant_id, hour, connection_id, author, emotion_before, tone_before, sentiment_before, satisfaction_before,
           -1
    FROM recounted
), cell AS MATERIALIZED (
    -- Sentiments in millionths, whole, or a sum would depend on the order of its parts: the domain rounds to six places.
    SELECT tenant_id, hour, connection_id, author, coalesce(emotion, '') AS emotion,
           CASE WHEN emotion IS NULL THEN '' ELSE coalesce(tone, '') END AS tone, sum(n)::int AS messages,
           coalesce(sum(n * (sentiment * 1000000)::bigint), 0)::bigint AS sentiment_sum,
           coalesce(sum(n * satisfaction), 0)::int AS satisfaction_sum,
           coalesce(sum(n) FILTER (WHERE sentiment > 0.1), 0)::int AS positive
    FROM change
    GROUP BY 1, 2, 3, 4, 5, 6
), span AS (
    INSERT INTO evosense.metrics_span AS s (
        tenant_id, since, hours, connection_ids, authors, emotions, tones, messages, sentiment_sums,
        satisfaction_sums, positives
    )
    SELECT tenant_id, to_timestamp(21600.0 * (hour / 6)), array_agg(mod(hour, 6)::smallint), array_agg(connection_id),
           array_agg(author), array_agg(emotion), array_agg(tone), array_agg(messages), array_agg(sentiment_sum),
           array_agg(satisfaction_sum), array_agg(positive)
    FROM (
        SELECT *
        FROM cell
        WHERE hour IS NOT NULL
        ORDER BY tenant_id, hour, connection_id, author COLLATE "C", emotion COLLATE "C", tone COLLATE "C"
    ) AS c
    GROUP BY tenant_id, hour / 6
    ON CONFLICT (tenant_id, since) DO UPDATE
    SET (
        hours, connection_ids, authors, emotions, tones, messages, sentiment_sums, satisfaction_sums, positives
    ) = (
        SELECT array_agg(hour), array_agg(connection_id), array_agg(author), array_agg(emotion), array_agg(tone),
               array_agg(messages), array_agg(sentiment_sum), array_agg(satisfaction_sum), array_agg(positive)
        FROM (
            SELECT hour, connection_id, author, emotion, tone, sum(messages)::int AS messages,
                   sum(sentiment_sum)::bigint AS sentiment_sum, sum(satisfaction_sum)::int AS satisfaction_sum,
                   sum(positive)::int AS positive
            FROM unnest(
                s.hours || excluded.hours, s.connection_ids || excluded.connection_ids, s.authors || excluded.authors,
                s.emotions || excluded.emotions, s.tones || excluded.tones, s.messages || excluded.messages,
                s.sentiment_sums || excluded.sentiment_sums, s.satisfaction_sums || excluded.satisfaction_sums,
                s.positives || excluded.positives
            ) AS c(
                hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive
            )
            GROUP BY hour, connection_id, author, emotion, tone
            HAVING sum(messages) <> 0
            ORDER BY hour, connection_id, author, emotion, tone
        ) AS merged
    )
), total AS (
    INSERT INTO evosense.metrics_rollup AS r (
        tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive
    )
    SELECT tenant_id, author, sum(messages), coalesce(sum(messages) FILTER (WHERE emotion <> ''), 0),
           sum(sentiment_sum) * 0.000001, sum(satisfaction_sum), sum(positive)
    FROM cell
    GROUP BY tenant_id, author
    ON CONFLICT (tenant_id, author) DO UPDATE
    SET messages = r.messages + excluded.messages,
        analysed = r.analysed + excluded.analysed,
        sentiment_sum = r.sentiment_sum + excluded.sentiment_sum,
        satisfaction_sum = r.satisfaction_sum + excluded.satisfaction_sum,
        positive = r.positive + excluded.positive
), emotion AS (
    SELECT tenant_id, author, emotion, sum(messages) AS messages
    FROM cell
    WHERE emotion <> ''
    GROUP BY tenant_id, author, emotion
    HAVING sum(messages) <> 0
), by_emotion AS (
    INSERT INTO evosense.metrics_emotion AS r (tenant_id, author, emotion, messages)
    SELECT tenant_id, author, emotion, messages FROM emotion
    ON CONFLICT (tenant_id, author, emotion) DO UPDATE SET messages = r.messages + excluded.messages
)
SELECT EXISTS (SELECT FROM emotion WHERE messages < 0);

-- name: forget_emotions(tenant_ids)!
-- A count that has fallen to nothing leaves no row, as if it had never been: batches of any size end alike.
DELETE FROM evosense.metrics_emotion WHERE tenant_id = ANY(:tenant_ids::uuid[]) AND messages = 0;

-- name: count_latencies(tenant_ids, model_names, tenants, models, shadows, hours, buckets, latencies)!
-- As `count`: places in the arrays of tenants and models.
WITH cell AS MATERIALIZED (
    SELECT tenant, model, shadow, hour, bucket, count(*)::int AS inferences, sum(latency)::bigint AS latency_ms_sum
    FROM unnest(
        :tenants::int[], :models::int[], :shadows::boolean[], :hours::int[], :buckets::smallint[], :latencies::int[]
    ) AS t(tenant, model, shadow, hour, bucket, latency)
    GROUP BY tenant, model, shadow, hour, bucket
), span AS (
    INSERT INTO evosense.metrics_latency_span AS s (
        tenant_id, since, model_name, is_shadow, hours, buckets, inferences, latency_ms_sums
    )
    SELECT (:tenant_ids::uuid[])[tenant], to_timestamp(21600.0 * (hour / 6)), (:model_names::text[])[model], shadow,
           array_agg(mod(hour, 6)::smallint), array_agg(bucket), array_agg(inferences), array_agg(latency_ms_sum)
    FROM (SELECT * FROM cell ORDER BY tenant, model, shadow, hour, bucket) AS c
    GROUP BY tenant, model, shadow, hour / 6
    ON CONFLICT (tenant_id, since, model_name, is_shadow) DO UPDATE
    SET (hours, buckets, inferences, latency_ms_sums) = (
        SELECT array_agg(hour), array_agg(bucket), array_agg(inferences), array_agg(latency_ms_sum)
        FROM (
            SELECT hour, bucket, sum(inferences)::int AS inferences, sum(latency_ms_sum)::bigint AS latency_ms_sum
            FROM unnest(
                s.hours || excluded.hours, s.buckets || excluded.buckets, s.inferences || excluded.inferences,
                s.latency_ms_sums || excluded.latency_ms_sums
            ) AS c(hour, bucket, inferences, latency_ms_sum)
            GROUP BY hour, bucket
            ORDER BY hour, bucket
        ) AS merged
    )
)
INSERT INTO evosense.metrics_latency AS r (tenant_id, inferences, latency_ms_sum)
SELECT (:tenant_ids::uuid[])[tenant], sum(inferences), sum(latency_ms_sum)
FROM cell
GROUP BY tenant
ON CONFLICT (tenant_id) DO UPDATE
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
