-- All vectors of a message, of whatever model: what goes when the message is deleted.
CREATE INDEX idx_message_embedding_message ON evosense.messages_embedding (tenant_id, message_id);
