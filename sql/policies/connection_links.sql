ALTER TABLE evosense_ops.connection_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.connection_links FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense_ops.connection_links;
CREATE POLICY app_tenant ON evosense_ops.connection_links FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

-- The listener serves all tenants at once, in the writer's role.
DROP POLICY IF EXISTS writer_all ON evosense_ops.connection_links;
CREATE POLICY writer_all ON evosense_ops.connection_links TO evosense_writer USING (true) WITH CHECK (true);
