-- Once for each statement that deletes inferences, whoever runs it and also through a cascade: takes their share of
-- the latency totals away, in the schema of the table itself: a rebuild's rows are none of the live ones. Runs with
-- the rights of whoever deletes.
CREATE OR REPLACE FUNCTION evosense.experiments_inference_forget() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- A build of some tables may be without this one.
    IF to_regclass(format('%I.metrics_latency', TG_TABLE_SCHEMA)) IS NULL THEN
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

    RETURN NULL;
END
$$;
