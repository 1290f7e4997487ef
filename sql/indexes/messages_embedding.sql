-- The documented name, on the side table (DESIGN section 4: keep the search index off the hot row).
CREATE INDEX idx_message_embedding ON evosense.messages_embedding USING hnsw (embedding halfvec_cosine_ops);
