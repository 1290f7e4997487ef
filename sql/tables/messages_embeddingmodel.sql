-- Which model answers a tenant's searches by meaning: a row for each EmbeddingMoveBegun (the model that goes on
-- answering) and EmbeddingModelAdopted, by its position in the log; the last one counts. No row while the tenant never
-- moved.
CREATE TABLE evosense.messages_embeddingmodel (
    tenant_id uuid NOT NULL,
    position bigint NOT NULL,
    model varchar(64) NOT NULL,
    adopted boolean NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, position)
);
