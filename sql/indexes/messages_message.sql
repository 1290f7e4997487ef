CREATE INDEX idx_message_tenant ON evosense.messages_message (tenant_id);
CREATE INDEX idx_message_created_at ON evosense.messages_message (created_at);
CREATE INDEX idx_message_chat_id ON evosense.messages_message (chat_id);
CREATE INDEX idx_message_sender ON evosense.messages_message (sender);
CREATE INDEX idx_message_text_gin ON evosense.messages_message USING gin(to_tsvector('portuguese', text));
CREATE INDEX idx_message_tenant_created ON evosense.messages_message (tenant_id, created_at);
CREATE INDEX idx_message_tenant_sentiment ON evosense.messages_message (tenant_id, sentiment);
