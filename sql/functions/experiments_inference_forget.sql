-- Once for each statement that deletes inferences, whoever runs it and also through a cascade: takes their share of
-- the latency totals away, in the schema of the table itself: a rebuild's rows are none of the live ones. Runs with
-- the rights of whoever deletes.
CREATE OR REPLACE FUNCTION evosense.experiments_inference_forget() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- A build of some tables may be without these.
    IF to_regclass(format('%I.metrics_latency', TG_TABLE_SCHEMA)) IS NULL
       OR to_regclass(format('%I.metrics_latency_hour', TG_TABLE_SCHEMA)) IS NULL THEN
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
        UPDATE %1$I.metrics_latency_hour r
        SET inferences = r.inferences - d.inferences,
            latency_ms_sum = r.latency_ms_sum - d.latency_ms_sum
        FROM (
            SELECT tenant_id, date_trunc('hour', created_at, 'UTC') AS hour, model_name, is_shadow,
                   evosense.latency_bucket(latency_ms) AS bucket,
                   count(*) AS inferences, sum(latency_ms) AS latency_ms_sum
            FROM deleted
            GROUP BY 1, 2, 3, 4, 5
        ) d
        WHERE r.tenant_id = d.tenant_id AND r.hour = d.hour AND r.model_name = d.model_name
          AND r.is_shadow = d.is_shadow AND r.bucket = d.bucket
        $statement$,
        TG_TABLE_SCHEMA
    );
    -- A statement of its own: it sees what the one before has left, whatever a projector added meanwhile.
    EXECUTE format(
        $statement$
        DELETE FROM %1$I.metrics_latency_hour r
        USING (SELECT DISTINCT tenant_id, date_trunc('hour', created_at, 'UTC') AS hour FROM deleted) d
        WHERE r.tenant_id = d.tenant_id AND r.hour = d.hour AND r.inferences <= 0
        $statement$,
        TG_TABLE_SCHEMA
    );

    RETURN NULL;
END
$$;
