-- The documented name goes to the index by which every search reaches a tenant's vectors: of a model, in the order of
-- their messages. One HNSW index for everybody, which bore the name until now, took 300 to 600 new vectors a second;
-- now the big tenants have HNSW indexes of their own (idx_message_embedding_s…), made aside (docs/adr/0030).
DROP INDEX evosense.idx_message_embedding;
DROP INDEX evosense.idx_message_embedding_model;
CREATE INDEX idx_message_embedding ON evosense.messages_embedding (tenant_id, model, message_id);
