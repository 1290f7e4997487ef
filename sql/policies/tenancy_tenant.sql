ALTER TABLE evosense.tenancy_tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.tenancy_tenant FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, which costs the vector search its index (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.tenancy_tenant;
CREATE POLICY app_tenant ON evosense.tenancy_tenant FOR SELECT TO evosense_app
    USING (id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.tenancy_tenant;
CREATE POLICY projector_all ON evosense.tenancy_tenant TO evosense_projector USING (true) WITH CHECK (true);

-- What cleanup_old_messages() and what it sets off need: row-level security is forced on the owner as well.
DROP POLICY IF EXISTS owner_cleanup ON evosense.tenancy_tenant;
CREATE POLICY owner_cleanup ON evosense.tenancy_tenant TO evosense_owner USING (true);

-- The product's superusers administer tenants. It opens the list of tenants and nothing else of theirs.
DROP POLICY IF EXISTS app_all_tenants ON evosense.tenancy_tenant;
CREATE POLICY app_all_tenants ON evosense.tenancy_tenant FOR SELECT TO evosense_app
    USING (current_setting('evosense.all_tenants', true) = 'on');
