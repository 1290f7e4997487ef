CREATE TABLE evosense.billing_paymentaccount (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID UNIQUE NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    stripe_customer_id VARCHAR(255) UNIQUE NOT NULL,
    stripe_subscription_id VARCHAR(255),
    status VARCHAR(16) DEFAULT 'pending' CHECK (status IN ('active', 'expired', 'pending', 'cancelled')),
    current_period_start TIMESTAMP WITH TIME ZONE,
    current_period_end TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
