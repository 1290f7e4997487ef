CREATE TABLE evosense.experiments_experimentrun (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    run_id VARCHAR(64) UNIQUE NOT NULL,
    name VARCHAR(200) NOT NULL,
    description TEXT,
    prompt_version VARCHAR(64) NOT NULL,
    start_date TIMESTAMP WITH TIME ZONE NOT NULL,
    end_date TIMESTAMP WITH TIME ZONE,
    status VARCHAR(16) DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    total_messages INTEGER DEFAULT 0,
    processed_messages INTEGER DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
