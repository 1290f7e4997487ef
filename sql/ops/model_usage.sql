-- What models answered and cost, by tenant and UTC day; `cost` in millionths of a US dollar. Not facts of the log: each
-- process adds up in memory and writes every second (ADR 0041).
CREATE TABLE evosense_ops.model_usage (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    model_name text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('analysis', 'embedding')),
    calls bigint NOT NULL DEFAULT 0,
    cached bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day, model_name, purpose)
);
CREATE INDEX model_usage_day ON evosense_ops.model_usage (day);
