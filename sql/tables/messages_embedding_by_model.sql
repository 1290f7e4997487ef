-- A vector of each model that a message was given to: two side by side while a tenant moves (docs/adr/0029). The key
-- also counts a tenant's vectors of a model, which idx_message_embedding_model did before.
DROP INDEX evosense.idx_message_embedding_model;
-- Log position of the MessageEmbedded event; 0 in rows older than this column, until `evosense rebuild messages`.
ALTER TABLE evosense.messages_embedding
    ADD COLUMN position bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT messages_embedding_pkey,
    ADD CONSTRAINT messages_embedding_pkey PRIMARY KEY (tenant_id, model, message_id);
