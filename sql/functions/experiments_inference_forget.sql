-- Once for each statement that deletes inferences, whoever runs it and also through a cascade: takes their share of
-- the latency totals away. Runs with the rights of whoever deletes.
CREATE OR REPLACE FUNCTION evosense.experiments_inference_forget() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE evosense.metrics_latency r
    SET inferences = r.inferences - d.inferences,
        latency_ms_sum = r.latency_ms_sum - d.latency_ms_sum
    FROM (
        SELECT tenant_id, count(*) AS inferences, sum(latency_ms) AS latency_ms_sum
        FROM deleted
        GROUP BY tenant_id
    ) d
    WHERE r.tenant_id = d.tenant_id;

    RETURN NULL;
END
$$;
