-- Totals behind tenant_metrics.avg_latency_ms: every inference of the tenant, shadow ones too, as documented.
CREATE TABLE evosense.metrics_latency (
    tenant_id uuid PRIMARY KEY REFERENCES evosense.tenancy_tenant (id) ON DELETE CASCADE,
    inferences bigint NOT NULL DEFAULT 0,
    latency_ms_sum bigint NOT NULL DEFAULT 0
);
