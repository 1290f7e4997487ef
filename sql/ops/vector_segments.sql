-- Which stretches of a tenant's vectors of one model have an HNSW index of their own, by message id: above `after_id`,
-- up to `upto_id`. What lies in none is compared one by one. Not a read model: the indexes are a matter of speed, and
-- `evosense vector maintain` makes them as tenants grow (docs/adr/0030).
CREATE TABLE evosense_ops.vector_segments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    model varchar(64) NOT NULL,
    after_id bigint NOT NULL,
    upto_id bigint NOT NULL CHECK (upto_id > after_id),
    index_name text NOT NULL UNIQUE CHECK (index_name ~ '^idx_message_embedding_s[0-9]+$'),
    vectors bigint NOT NULL, -- when the index was made
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX vector_segments_tenant ON evosense_ops.vector_segments (tenant_id, model, after_id);
CREATE SEQUENCE evosense_ops.vector_segment_names;
