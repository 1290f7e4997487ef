-- All that one InferenceRecorded changes, in one statement.
WITH inference AS (
    INSERT INTO bench_runner.experiments_inference (
        id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion,
        satisfaction, is_shadow, run_id, created_at
    )
    VALUES (
        %(id)s, %(tenant_id)s, %(message_id)s, %(model_name)s, %(prompt_version)s, %(template_hash)s, %(latency_ms)s,
        %(sentiment)s, %(emotion)s, %(satisfaction)s, %(is_shadow)s, %(run_id)s, %(created_at)s
    )
)
INSERT INTO bench_runner.metrics_latency AS l (tenant_id, inferences, latency_ms_sum)
VALUES (%(tenant_id)s, 1, %(latency_ms)s)
ON CONFLICT (tenant_id) DO UPDATE
SET inferences = l.inferences + 1, latency_ms_sum = l.latency_ms_sum + excluded.latency_ms_sum;
