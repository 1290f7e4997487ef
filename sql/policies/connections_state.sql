ALTER TABLE evosense.connections_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.connections_state FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, which costs the vector search its index (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.connections_state;
CREATE POLICY app_tenant ON evosense.connections_state FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.connections_state;
CREATE POLICY projector_all ON evosense.connections_state TO evosense_projector USING (true) WITH CHECK (true);
