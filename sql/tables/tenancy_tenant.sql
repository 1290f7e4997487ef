CREATE TABLE evosense.tenancy_tenant (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(160) NOT NULL,
    plan VARCHAR(32) DEFAULT 'starter' CHECK (plan IN ('starter', 'pro', 'scale', 'enterprise')),
    next_billing_date DATE,
    status VARCHAR(16) DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'trial')),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
