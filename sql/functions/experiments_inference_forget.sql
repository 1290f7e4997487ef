-- Once for each statement that deletes inferences, whoever runs it and also through a cascade: takes their share of
-- the latency totals away, in the schema of the table itself: a rebuild's rows are none of the live ones. Runs with
-- the rights of whoever deletes.
CREATE OR REPLACE FUNCTION evosense.experiments_inference_forget() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- A build of some tables may be without these.
    IF to_regclass(format('%I.metrics_latency', TG_TABLE_SCHEMA)) IS NULL
       OR to_regclass(format('%I.metrics_latency_span', TG_TABLE_SCHEMA)) IS NULL THEN
        RETURN NULL;
    END IF;

    EXECUTE format(
        $statement$
        UPDATE %1$I.metrics_latency r
        SET inferences = r.inferences - d.inferences,
            latency_ms_sum = r.latency_ms_sum - d.latency_ms_sum
        FROM (
            SELECT tenant_id, count(*) AS inferences, sum(latency_ms) AS latency_ms_sum
            FROM deleted
            GROUP BY tenant_id
        ) d
        WHERE r.tenant_id = d.tenant_id
        $statement$,
        TG_TABLE_SCHEMA
    );
    EXECUTE format(
        $statement$
        WITH cells AS (
            SELECT tenant_id, model_name, is_shadow, floor(extract(epoch FROM created_at) / 3600)::int AS hour,
                   evosense.latency_bucket(latency_ms) AS bucket, count(*)::int AS inferences,
                   sum(latency_ms) AS latency_ms_sum
            FROM deleted
            GROUP BY 1, 2, 3, 4, 5
        ), spans AS (
            SELECT tenant_id, model_name, is_shadow, to_timestamp(21600.0 * (hour / 6)) AS since,
                   array_agg(mod(hour, 6)::smallint) AS hours, array_agg(bucket) AS buckets,
                   array_agg(-inferences) AS inferences, array_agg(-latency_ms_sum) AS latency_ms_sums
            FROM cells
            GROUP BY tenant_id, model_name, is_shadow, hour / 6
        )
        UPDATE %1$I.metrics_latency_span r
        SET (hours, buckets, inferences, latency_ms_sums) = (
            -- All of them are empty where nothing is left.
            SELECT coalesce(array_agg(m.hour), '{}'), coalesce(array_agg(m.bucket), '{}'),
                   coalesce(array_agg(m.inferences), '{}'), coalesce(array_agg(m.latency_ms_sum), '{}')
            FROM (
                SELECT hour, bucket, sum(inferences)::int AS inferences, sum(latency_ms_sum)::bigint AS latency_ms_sum
                FROM unnest(
                    r.hours || s.hours, r.buckets || s.buckets, r.inferences || s.inferences,
                    r.latency_ms_sums || s.latency_ms_sums
                ) AS c(hour, bucket, inferences, latency_ms_sum)
                GROUP BY hour, bucket
                HAVING sum(inferences) > 0 -- inferences from before the hours were kept are in none
                ORDER BY hour, bucket
            ) m
        )
        FROM spans s
        WHERE r.tenant_id = s.tenant_id AND r.since = s.since AND r.model_name = s.model_name
          AND r.is_shadow = s.is_shadow
        $statement$,
        TG_TABLE_SCHEMA
    );
    -- A statement of its own: it sees what the one before has left, whatever a projector added meanwhile.
    EXECUTE format(
        $statement$
        DELETE FROM %1$I.metrics_latency_span r
        USING (
            SELECT DISTINCT tenant_id, to_timestamp(21600.0 * floor(extract(epoch FROM created_at) / 21600)) AS since
            FROM deleted
        ) d
        WHERE r.tenant_id = d.tenant_id AND r.since = d.since AND r.inferences = '{}'
        $statement$,
        TG_TABLE_SCHEMA
    );

    RETURN NULL;
END
$$;
