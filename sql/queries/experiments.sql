-- name: put_inferences(ids, tenant_ids, message_ids, model_names, prompt_versions, template_hashes, latencies, sentiments, emotions, satisfactions, shadows, run_ids, created_ats)!
INSERT INTO evosense.experiments_inference (
    id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion, satisfaction,
    is_shadow, run_id, created_at
)
SELECT id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion,
    satisfaction, is_shadow, run_id, created_at
FROM unnest(
    :ids::bigint[], :tenant_ids::uuid[], :message_ids::bigint[], :model_names::text[], :prompt_versions::text[],
    :template_hashes::text[], :latencies::int[], :sentiments::float8[], :emotions::text[], :satisfactions::int[],
    :shadows::bool[], :run_ids::text[], :created_ats::timestamptz[]
) AS t(
    id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion, satisfaction,
    is_shadow, run_id, created_at
);

-- name: load_inferences#
COPY evosense.experiments_inference (
    id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion, satisfaction,
    is_shadow, run_id, created_at
) FROM STDIN (FORMAT binary);
