-- The documented schema, statement by statement, for tests/sql/test_schema.py: applied to a schema of its own and
-- compared with what `evosense migrate` makes. cleanup_old_messages() is missing: as documented it does not compile.

CREATE TABLE tenancy_tenant (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(160) NOT NULL,
    plan VARCHAR(32) DEFAULT 'starter' CHECK (plan IN ('starter', 'pro', 'scale', 'enterprise')),
    next_billing_date DATE,
    status VARCHAR(16) DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'trial')),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
CREATE INDEX idx_tenant_plan ON tenancy_tenant(plan);
CREATE INDEX idx_tenant_status ON tenancy_tenant(status);
CREATE INDEX idx_tenant_billing ON tenancy_tenant(next_billing_date);

CREATE TABLE authn_user (
    id BIGSERIAL PRIMARY KEY,
    password VARCHAR(128) NOT NULL,
    last_login TIMESTAMP WITH TIME ZONE,
    is_superuser BOOLEAN DEFAULT FALSE,
    username VARCHAR(150) UNIQUE NOT NULL,
    first_name VARCHAR(150),
    last_name VARCHAR(150),
    email VARCHAR(254),
    is_staff BOOLEAN DEFAULT FALSE,
    is_active BOOLEAN DEFAULT TRUE,
    date_joined TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    role VARCHAR(16) DEFAULT 'operator' CHECK (role IN ('admin', 'operator'))
);
CREATE INDEX idx_user_tenant ON authn_user(tenant_id);
CREATE INDEX idx_user_username ON authn_user(username);
CREATE INDEX idx_user_email ON authn_user(email);

CREATE TABLE connections_evolutionconnection (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    name VARCHAR(80) NOT NULL,
    evo_ws_url TEXT NOT NULL,
    evo_token VARCHAR(255) NOT NULL,
    is_active BOOLEAN DEFAULT TRUE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    UNIQUE(tenant_id, name)
);
CREATE INDEX idx_connection_tenant ON connections_evolutionconnection(tenant_id);
CREATE INDEX idx_connection_active ON connections_evolutionconnection(is_active);

CREATE TABLE messages_message (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    connection_id BIGINT REFERENCES connections_evolutionconnection(id) ON DELETE SET NULL,
    chat_id VARCHAR(128) NOT NULL,
    sender VARCHAR(64) NOT NULL,
    text TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sentiment FLOAT CHECK (sentiment >= -1 AND sentiment <= 1),
    emotion VARCHAR(40),
    satisfaction INTEGER CHECK (satisfaction >= 0 AND satisfaction <= 100),
    tone VARCHAR(40),
    summary VARCHAR(200),
    embedding vector(768)
);
CREATE INDEX idx_message_tenant ON messages_message(tenant_id);
CREATE INDEX idx_message_created_at ON messages_message(created_at);
CREATE INDEX idx_message_chat_id ON messages_message(chat_id);
CREATE INDEX idx_message_sender ON messages_message(sender);
CREATE INDEX idx_message_text_gin ON messages_message USING gin(to_tsvector('portuguese', text));
CREATE INDEX idx_message_embedding ON messages_message USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
CREATE INDEX idx_message_tenant_created ON messages_message(tenant_id, created_at);
CREATE INDEX idx_message_tenant_sentiment ON messages_message(tenant_id, sentiment);

CREATE TABLE experiments_prompttemplate (
    id BIGSERIAL PRIMARY KEY,
    version VARCHAR(64) UNIQUE NOT NULL,
    body TEXT NOT NULL,
    description TEXT,
    is_active BOOLEAN DEFAULT FALSE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    created_by VARCHAR(100)
);
CREATE INDEX idx_prompt_version ON experiments_prompttemplate(version);
CREATE INDEX idx_prompt_active ON experiments_prompttemplate(is_active);

CREATE TABLE experiments_inference (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    message_id BIGINT NOT NULL REFERENCES messages_message(id) ON DELETE CASCADE,
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
CREATE INDEX idx_inference_tenant ON experiments_inference(tenant_id);
CREATE INDEX idx_inference_message ON experiments_inference(message_id);
CREATE INDEX idx_inference_run_id ON experiments_inference(run_id);
CREATE INDEX idx_inference_created_at ON experiments_inference(created_at);
CREATE INDEX idx_inference_shadow ON experiments_inference(is_shadow);
CREATE INDEX idx_inference_prompt ON experiments_inference(prompt_version);

CREATE TABLE experiments_experimentrun (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
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
CREATE INDEX idx_experiment_tenant ON experiments_experimentrun(tenant_id);
CREATE INDEX idx_experiment_run_id ON experiments_experimentrun(run_id);
CREATE INDEX idx_experiment_status ON experiments_experimentrun(status);
CREATE INDEX idx_experiment_created ON experiments_experimentrun(created_at);

CREATE TABLE billing_paymentaccount (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID UNIQUE NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    stripe_customer_id VARCHAR(255) UNIQUE NOT NULL,
    stripe_subscription_id VARCHAR(255),
    status VARCHAR(16) DEFAULT 'pending' CHECK (status IN ('active', 'expired', 'pending', 'cancelled')),
    current_period_start TIMESTAMP WITH TIME ZONE,
    current_period_end TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
CREATE INDEX idx_payment_tenant ON billing_paymentaccount(tenant_id);
CREATE INDEX idx_payment_stripe_customer ON billing_paymentaccount(stripe_customer_id);
CREATE INDEX idx_payment_status ON billing_paymentaccount(status);

CREATE TABLE billing_billingevent (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenancy_tenant(id) ON DELETE CASCADE,
    event_type VARCHAR(64) NOT NULL,
    stripe_event_id VARCHAR(255) UNIQUE NOT NULL,
    processed BOOLEAN DEFAULT FALSE,
    data JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);
CREATE INDEX idx_billing_event_tenant ON billing_billingevent(tenant_id);
CREATE INDEX idx_billing_event_type ON billing_billingevent(event_type);
CREATE INDEX idx_billing_event_stripe ON billing_billingevent(stripe_event_id);
CREATE INDEX idx_billing_event_processed ON billing_billingevent(processed);
CREATE INDEX idx_billing_event_created ON billing_billingevent(created_at);

CREATE VIEW tenant_metrics AS
SELECT
    t.id as tenant_id,
    t.name as tenant_name,
    t.plan,
    COUNT(m.id) as total_messages,
    AVG(m.sentiment) as avg_sentiment,
    AVG(m.satisfaction) as avg_satisfaction,
    COUNT(CASE WHEN m.sentiment > 0.1 THEN 1 END) * 100.0 / COUNT(m.id) as positive_pct,
    COUNT(CASE WHEN m.created_at >= CURRENT_DATE THEN 1 END) as messages_today,
    COUNT(DISTINCT c.id) as active_connections,
    AVG(i.latency_ms) as avg_latency_ms
FROM tenancy_tenant t
LEFT JOIN messages_message m ON t.id = m.tenant_id
LEFT JOIN connections_evolutionconnection c ON t.id = c.tenant_id AND c.is_active = true
LEFT JOIN experiments_inference i ON t.id = i.tenant_id
GROUP BY t.id, t.name, t.plan;

CREATE OR REPLACE FUNCTION semantic_search(
    p_tenant_id UUID,
    p_query_embedding vector(768),
    p_limit INTEGER DEFAULT 20,
    p_similarity_threshold FLOAT DEFAULT 0.7
)
RETURNS TABLE (
    message_id BIGINT,
    text TEXT,
    sentiment FLOAT,
    satisfaction INTEGER,
    similarity_score FLOAT,
    created_at TIMESTAMP WITH TIME ZONE
) AS $$
BEGIN
    RETURN QUERY
    SELECT
        m.id,
        m.text,
        m.sentiment,
        m.satisfaction,
        1 - (m.embedding <=> p_query_embedding) as similarity_score,
        m.created_at
    FROM messages_message m
    WHERE m.tenant_id = p_tenant_id
        AND m.embedding IS NOT NULL
        AND (1 - (m.embedding <=> p_query_embedding)) >= p_similarity_threshold
    ORDER BY m.embedding <=> p_query_embedding
    LIMIT p_limit;
END;
$$ LANGUAGE plpgsql;
