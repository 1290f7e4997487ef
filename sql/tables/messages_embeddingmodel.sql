-- The model that answers a tenant's searches by meaning; no row while it never moved. Model and position are those of
-- the latest EmbeddingMoveBegun or EmbeddingModelAdopted.
CREATE TABLE evosense.messages_embeddingmodel (
    tenant_id uuid PRIMARY KEY,
    model varchar(64) NOT NULL,
    position bigint NOT NULL,
    updated_at timestamptz NOT NULL
);
