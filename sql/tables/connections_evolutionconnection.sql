CREATE TABLE evosense.connections_evolutionconnection (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    name VARCHAR(80) NOT NULL,
    evo_ws_url TEXT NOT NULL,
    evo_token VARCHAR(255) NOT NULL,
    is_active BOOLEAN DEFAULT TRUE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    UNIQUE(tenant_id, name)
);
