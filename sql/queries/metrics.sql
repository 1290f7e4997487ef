-- name: load_messages#
COPY evosense.metrics_message (
    message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
) FROM STDIN (FORMAT binary);

-- name: recount(message_ids, sentiments, satisfactions, emotions, tones, emotion_names, tone_names)
-- Answers with what the messages counted as until now. A message that is not counted, as retention has deleted it,
-- stays so. One that waits for its analysis again, as its text has changed, comes with '' for emotion and tone.
UPDATE evosense.metrics_message AS c
SET sentiment = n.sentiment, satisfaction = n.satisfaction,
    emotion = nullif((:emotion_names::text[])[n.emotion], ''), tone = nullif((:tone_names::text[])[n.tone], '')
FROM unnest(
    :message_ids::bigint[], :sentiments::float8[], :satisfactions::int[], :emotions::int[], :tones::int[]
) AS n(message_id, sentiment, satisfaction, emotion, tone)
-- OFFSET 0: each is looked up, and the table not read, however few rows it has or is thought to have.
CROSS JOIN LATERAL (
    SELECT * FROM evosense.metrics_message AS b WHERE b.message_id = n.message_id OFFSET 0
) AS before
WHERE c.message_id = before.message_id
RETURNING before.message_id, before.tenant_id, before.author, before.sentiment, before.satisfaction, before.emotion,
    before.hour, before.connection_id, before.tone;

-- name: count(tenant_ids, emotion_names, tone_names, store, message_ids, tenants, authors, hours, connection_ids, sentiments, satisfactions, emotions, tones, signs)!
-- Messages that come or count as something now (sign 1), and what earlier ones counted as until now (-1). Those with an
-- id are new, and go into metrics_message as well where `store` says so. Tenants, authors, emotions and tones of the
-- columns are places in the arrays of their names, which are in the order of their bytes and begin with ''.
WITH change AS MATERIALIZED (
    SELECT message_id, tenant, author, hour, connection_id, sentiment, satisfaction, emotion, tone, sign
    FROM unnest(
        :message_ids::bigint[], :tenants::int[], :authors::int[], :hours::int[], :connection_ids::bigint[],
        :sentiments::float8[], :satisfactions::int[], :emotions::int[], :tones::int[], :signs::int[]
    ) AS t(message_id, tenant, author, hour, connection_id, sentiment, satisfaction, emotion, tone, sign)
), stored AS (
    INSERT INTO evosense.metrics_message (
        message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
    )
    SELECT message_id, (:tenant_ids::uuid[])[tenant], ('{company,customer}'::text[])[author], sentiment, satisfaction,
           nullif((:emotion_names::text[])[emotion], ''), hour, connection_id, nullif((:tone_names::text[])[tone], '')
    FROM change
    WHERE :store::boolean AND message_id IS NOT NULL
), cell AS MATERIALIZED (
    -- Sentiments in millionths, whole, or a sum would depend on the order of its parts: the domain rounds to six places.
    SELECT tenant, hour, connection_id, author, emotion, tone, sum(sign)::int AS messages,
           coalesce(sum(sign * (sentiment * 1000000)::bigint), 0)::bigint AS sentiment_sum,
           coalesce(sum(sign * satisfaction), 0)::int AS satisfaction_sum,
           coalesce(sum(sign) FILTER (WHERE sentiment > 0.1), 0)::int AS positive
    FROM change
    GROUP BY 1, 2, 3, 4, 5, 6
), span AS (
    INSERT INTO evosense.metrics_span AS s (
        tenant_id, since, hours, connection_ids, authors, emotions, tones, messages, sentiment_sums,
        satisfaction_sums, positives
    )
    SELECT (:tenant_ids::uuid[])[tenant], to_timestamp(21600.0 * span), array_agg(mod(hour, 6)::smallint),
           array_agg(connection_id), array_agg(('{company,customer}'::text[])[author]),
           array_agg((:emotion_names::text[])[emotion]), array_agg((:tone_names::text[])[tone]), array_agg(messages),
           array_agg(sentiment_sum), array_agg(satisfaction_sum), array_agg(positive)
    FROM (
        SELECT *, hour / 6 AS span
        FROM cell
        WHERE hour IS NOT NULL
        ORDER BY tenant, span, hour, connection_id, author, emotion, tone
    ) AS c
    GROUP BY tenant, span
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
    SELECT (:tenant_ids::uuid[])[tenant], ('{company,customer}'::text[])[author], sum(messages),
           coalesce(sum(messages) FILTER (WHERE emotion > 1), 0), sum(sentiment_sum) * 0.000001,
           sum(satisfaction_sum), sum(positive)
    FROM cell
    GROUP BY tenant, author
    ON CONFLICT (tenant_id, author) DO UPDATE
    SET messages = r.messages + excluded.messages,
        analysed = r.analysed + excluded.analysed,
        sentiment_sum = r.sentiment_sum + excluded.sentiment_sum,
        satisfaction_sum = r.satisfaction_sum + excluded.satisfaction_sum,
        positive = r.positive + excluded.positive
), emotion AS MATERIALIZED (
    SELECT (:tenant_ids::uuid[])[tenant] AS tenant_id, ('{company,customer}'::text[])[author] AS author,
           (:emotion_names::text[])[emotion] AS emotion, sum(messages) AS messages
    FROM cell
    WHERE emotion > 1
    GROUP BY tenant, author, cell.emotion
    HAVING sum(messages) <> 0
), gone AS (
    -- A count that falls to nothing leaves no row, as if it had never been: batches of any size end alike.
    DELETE FROM evosense.metrics_emotion AS r
    USING emotion AS e
    WHERE e.messages < 0 AND r.tenant_id = e.tenant_id AND r.author = e.author AND r.emotion = e.emotion
        AND r.messages + e.messages = 0
    RETURNING r.tenant_id, r.author, r.emotion
)
INSERT INTO evosense.metrics_emotion AS r (tenant_id, author, emotion, messages)
SELECT tenant_id, author, emotion, messages
FROM emotion AS e
WHERE messages > 0 OR (tenant_id, author, emotion) NOT IN (SELECT tenant_id, author, emotion FROM gone)
ON CONFLICT (tenant_id, author, emotion) DO UPDATE SET messages = r.messages + excluded.messages;

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
    SELECT (:tenant_ids::uuid[])[tenant], to_timestamp(21600.0 * span), (:model_names::text[])[model], shadow,
           array_agg(mod(hour, 6)::smallint), array_agg(bucket), array_agg(inferences), array_agg(latency_ms_sum)
    FROM (SELECT *, hour / 6 AS span FROM cell ORDER BY tenant, model, shadow, span, hour, bucket) AS c
    GROUP BY tenant, model, shadow, span
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
    width_bucket(s.since + make_interval(hours => c.hour), :bounds::timestamptz[]) AS bucket,
    CASE :by::text
        WHEN 'connection' THEN c.connection_id::text
        WHEN 'emotion' THEN c.emotion
        WHEN 'tone' THEN c.tone
        WHEN 'author' THEN c.author
    END AS key,
    sum(c.messages)::bigint AS messages,
    coalesce(sum(c.messages) FILTER (WHERE c.emotion <> ''), 0)::bigint AS analysed,
    sum(c.sentiment_sum) * 0.000001 AS sentiment_sum,
    sum(c.satisfaction_sum)::bigint AS satisfaction_sum,
    sum(c.positive)::bigint AS positive
FROM evosense.metrics_span AS s
CROSS JOIN LATERAL unnest(
    s.hours, s.connection_ids, s.authors, s.emotions, s.tones, s.messages, s.sentiment_sums, s.satisfaction_sums,
    s.positives
) AS c(hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum, positive)
WHERE s.since > :since::timestamptz - interval '6 hours' AND s.since < :until
    AND s.since + make_interval(hours => c.hour) >= :since AND s.since + make_interval(hours => c.hour) < :until
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
SELECT s.model_name, s.is_shadow, s.since + make_interval(hours => c.hour) < :since AS previous, c.bucket,
       sum(c.inferences)::bigint AS inferences, sum(c.latency_ms_sum)::bigint AS latency_ms_sum
FROM evosense.metrics_latency_span AS s
CROSS JOIN LATERAL unnest(s.hours, s.buckets, s.inferences, s.latency_ms_sums)
    AS c(hour, bucket, inferences, latency_ms_sum)
WHERE s.since > :before::timestamptz - interval '6 hours' AND s.since < :until
    AND s.since + make_interval(hours => c.hour) >= :before AND s.since + make_interval(hours => c.hour) < :until
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4;

-- name: end_of_pipeline()$
SELECT 1;
