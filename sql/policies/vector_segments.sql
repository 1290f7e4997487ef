ALTER TABLE evosense_ops.vector_segments ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.vector_segments FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense_ops.vector_segments;
CREATE POLICY app_tenant ON evosense_ops.vector_segments FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS owner_all ON evosense_ops.vector_segments;
CREATE POLICY owner_all ON evosense_ops.vector_segments TO evosense_owner USING (true) WITH CHECK (true);
