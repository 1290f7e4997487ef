-- Analysed messages by emotion. A row may stand at zero after its last message is gone.
CREATE TABLE evosense.metrics_emotion (
    tenant_id uuid NOT NULL REFERENCES evosense.tenancy_tenant (id) ON DELETE CASCADE,
    author varchar(8) NOT NULL CHECK (author IN ('customer', 'company')),
    emotion varchar(40) NOT NULL,
    messages bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, author, emotion)
);
