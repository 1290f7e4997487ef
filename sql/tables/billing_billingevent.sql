CREATE TABLE evosense.billing_billingevent (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    event_type VARCHAR(64) NOT NULL,
    stripe_event_id VARCHAR(255) UNIQUE NOT NULL,
    processed BOOLEAN DEFAULT FALSE,
    data JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
