CREATE TABLE evosense.messages_message (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES evosense.tenancy_tenant(id) ON DELETE CASCADE,
    connection_id BIGINT REFERENCES evosense.connections_evolutionconnection(id) ON DELETE SET NULL,
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
