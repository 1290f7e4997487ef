-- Answers of served models to short texts, by a keyed hash of tenant, model, prompt and text. Sealed with the tenant's
-- key, and gone with it: no fact of the log, and of no use without the key (ADR 0041).
CREATE TABLE evosense_ops.answer_cache (
    tenant_id uuid NOT NULL REFERENCES evosense_log.tenant_keys (tenant_id) ON DELETE CASCADE,
    key bytea NOT NULL,
    sealed bytea NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX answer_cache_age ON evosense_ops.answer_cache (answered_at);
CREATE INDEX answer_cache_tenant_age ON evosense_ops.answer_cache (tenant_id, answered_at);
