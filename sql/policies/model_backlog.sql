ALTER TABLE evosense_ops.model_backlog ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.model_backlog FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense_ops.model_backlog;
CREATE POLICY app_tenant ON evosense_ops.model_backlog FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

-- The worker serves all tenants at once, in the writer's role.
DROP POLICY IF EXISTS writer_all ON evosense_ops.model_backlog;
CREATE POLICY writer_all ON evosense_ops.model_backlog TO evosense_writer USING (true) WITH CHECK (true);

-- `evosense monitor` shows how many wait.
DROP POLICY IF EXISTS projector_sees ON evosense_ops.model_backlog;
CREATE POLICY projector_sees ON evosense_ops.model_backlog FOR SELECT TO evosense_projector USING (true);
