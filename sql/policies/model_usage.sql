ALTER TABLE evosense_ops.model_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.model_usage FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense_ops.model_usage;
CREATE POLICY app_tenant ON evosense_ops.model_usage FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS writer_all ON evosense_ops.model_usage;
CREATE POLICY writer_all ON evosense_ops.model_usage TO evosense_writer USING (true) WITH CHECK (true);

-- `evosense monitor` shows all tenants'.
DROP POLICY IF EXISTS projector_reads ON evosense_ops.model_usage;
CREATE POLICY projector_reads ON evosense_ops.model_usage FOR SELECT TO evosense_projector USING (true);

DROP POLICY IF EXISTS owner_all ON evosense_ops.model_usage;
CREATE POLICY owner_all ON evosense_ops.model_usage TO evosense_owner USING (true) WITH CHECK (true);
