-- What was kept in a row for each hour, connection, author, emotion and tone goes into the spans. Views of the old names
-- and columns come with [repeatable].
INSERT INTO evosense.metrics_span (
    tenant_id, since, hours, connection_ids, authors, emotions, tones, messages, sentiment_sums, satisfaction_sums,
    positives
)
SELECT tenant_id, to_timestamp(21600.0 * (hour / 6)), array_agg((hour % 6)::smallint), array_agg(connection_id),
       array_agg(author), array_agg(emotion), array_agg(tone), array_agg(messages), array_agg(sentiment_sum),
       array_agg(satisfaction_sum), array_agg(positive)
FROM (
    SELECT tenant_id, (extract(epoch FROM hour) / 3600)::int AS hour, connection_id, author::text, emotion::text,
           tone::text, messages::int, (sentiment_sum * 1000000)::bigint AS sentiment_sum,
           satisfaction_sum::int, positive::int
    FROM evosense.metrics_hour
    ORDER BY 1, 2, 3, 4, 5, 6
) AS h
GROUP BY tenant_id, hour / 6;

INSERT INTO evosense.metrics_latency_span (
    tenant_id, since, model_name, is_shadow, hours, buckets, inferences, latency_ms_sums
)
SELECT tenant_id, to_timestamp(21600.0 * (hour / 6)), model_name, is_shadow, array_agg((hour % 6)::smallint),
       array_agg(bucket), array_agg(inferences), array_agg(latency_ms_sum)
FROM (
    SELECT tenant_id, model_name, is_shadow, (extract(epoch FROM hour) / 3600)::int AS hour, bucket, inferences::int,
           latency_ms_sum
    FROM evosense.metrics_latency_hour
    ORDER BY 1, 2, 3, 4, 5
) AS h
GROUP BY tenant_id, hour / 6, model_name, is_shadow;

DROP VIEW IF EXISTS evosense.tenant_metrics_by_day;
DROP TABLE evosense.metrics_hour;
DROP TABLE evosense.metrics_latency_hour;
