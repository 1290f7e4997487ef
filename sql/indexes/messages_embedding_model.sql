-- How many vectors of which model a tenant has, without reading a vector.
CREATE INDEX idx_message_embedding_model ON evosense.messages_embedding (tenant_id, model);
