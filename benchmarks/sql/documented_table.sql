-- A table with the columns and indexes of the documented messages_message, without foreign keys.
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.messages_message (LIKE evosense.messages_message INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
-- The documented vector index stands on this table (ours stands beside it).
CREATE INDEX ON bench.messages_message USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
