ALTER TABLE evosense.metrics_latency_span ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.metrics_latency_span FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, which costs the vector search its index (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.metrics_latency_span;
CREATE POLICY app_tenant ON evosense.metrics_latency_span FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.metrics_latency_span;
CREATE POLICY projector_all ON evosense.metrics_latency_span TO evosense_projector USING (true) WITH CHECK (true);

-- What cleanup_old_messages() and what it sets off need: row-level security is forced on the owner as well.
DROP POLICY IF EXISTS owner_cleanup ON evosense.metrics_latency_span;
CREATE POLICY owner_cleanup ON evosense.metrics_latency_span TO evosense_owner USING (true);
