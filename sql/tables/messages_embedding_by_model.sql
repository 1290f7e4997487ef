-- A vector of each model that a message was given to: two side by side while a tenant moves (docs/adr/0029).
-- Log position of the MessageEmbedded event; 0 in rows older than this column, until `evosense rebuild messages`.
ALTER TABLE evosense.messages_embedding
    ADD COLUMN position bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT messages_embedding_pkey,
    -- The message before the model: what goes when a message is deleted. idx_message_embedding has the other order.
    ADD CONSTRAINT messages_embedding_pkey PRIMARY KEY (tenant_id, message_id, model);
