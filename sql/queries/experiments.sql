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

-- name: put_prompts(ids, versions, bodies, descriptions, actives, created_ats, created_bys)!
INSERT INTO evosense.experiments_prompttemplate (id, version, body, description, is_active, created_at, created_by)
SELECT id, version, body, description, is_active, created_at, created_by
FROM unnest(
    :ids::bigint[], :versions::text[], :bodies::text[], :descriptions::text[], :actives::bool[],
    :created_ats::timestamptz[], :created_bys::text[]
) AS t(id, version, body, description, is_active, created_at, created_by);

-- name: activate_prompt(version)!
-- The two rows that change, and no other.
UPDATE evosense.experiments_prompttemplate
SET is_active = (version = :version)
WHERE is_active IS DISTINCT FROM (version = :version);

-- name: prompts(after, page)
-- With whether any is active, on this page or another: the built-in one is where none is.
SELECT id, version, description, is_active, created_at, created_by,
    EXISTS (SELECT FROM evosense.experiments_prompttemplate WHERE is_active) AS replaced
FROM evosense.experiments_prompttemplate
WHERE id > :after
ORDER BY id
LIMIT :page;

-- name: prompt(version)^
SELECT id, version, body, description, is_active, created_at, created_by
FROM evosense.experiments_prompttemplate
WHERE version = :version;

-- name: active_prompt()^
SELECT version, body
FROM evosense.experiments_prompttemplate
WHERE is_active;
