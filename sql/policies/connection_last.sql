ALTER TABLE evosense_ops.connection_last ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.connection_last FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense_ops.connection_last;
CREATE POLICY app_tenant ON evosense_ops.connection_last FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS writer_all ON evosense_ops.connection_last;
CREATE POLICY writer_all ON evosense_ops.connection_last TO evosense_writer USING (true) WITH CHECK (true);

DROP POLICY IF EXISTS owner_all ON evosense_ops.connection_last;
CREATE POLICY owner_all ON evosense_ops.connection_last TO evosense_owner USING (true) WITH CHECK (true);
