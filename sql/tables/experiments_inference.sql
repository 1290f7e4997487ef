CREATE TABLE evosense.experiments_inference (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    message_id BIGINT NOT NULL REFERENCES evosense.messages_message(id) ON DELETE CASCADE,
    model_name VARCHAR(64) NOT NULL,
    prompt_version VARCHAR(64) NOT NULL,
    template_hash VARCHAR(64) NOT NULL,
    latency_ms INTEGER NOT NULL,
    sentiment FLOAT NOT NULL,
    emotion VARCHAR(40) NOT NULL,
    satisfaction INTEGER NOT NULL,
    is_shadow BOOLEAN DEFAULT FALSE,
    run_id VARCHAR(64) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
