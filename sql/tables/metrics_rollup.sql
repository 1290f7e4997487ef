-- Totals of a tenant's messages, by who wrote them. No check forbids negative numbers: a projector folds differences
-- with INSERT ... ON CONFLICT, and a check is applied to the difference before the conflict is seen.
CREATE TABLE evosense.metrics_rollup (
    tenant_id uuid NOT NULL REFERENCES evosense.tenancy_tenant (id) ON DELETE CASCADE,
    author varchar(8) NOT NULL CHECK (author IN ('customer', 'company')),
    messages bigint NOT NULL DEFAULT 0,
    analysed bigint NOT NULL DEFAULT 0,
    -- numeric: the same sum in whatever order it was added up, and what was added can be taken away again exactly.
    sentiment_sum numeric NOT NULL DEFAULT 0,
    satisfaction_sum bigint NOT NULL DEFAULT 0,
    positive bigint NOT NULL DEFAULT 0, -- sentiment > 0.1, as documented
    PRIMARY KEY (tenant_id, author)
);
