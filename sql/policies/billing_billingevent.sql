ALTER TABLE evosense.billing_billingevent ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.billing_billingevent FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, which costs the vector search its index (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.billing_billingevent;
CREATE POLICY app_tenant ON evosense.billing_billingevent FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.billing_billingevent;
CREATE POLICY projector_all ON evosense.billing_billingevent TO evosense_projector USING (true) WITH CHECK (true);
