ALTER TABLE evosense.messages_person ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_person FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, as everywhere (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.messages_person;
CREATE POLICY app_tenant ON evosense.messages_person FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.messages_person;
CREATE POLICY projector_all ON evosense.messages_person TO evosense_projector USING (true) WITH CHECK (true);

-- What earlier_texts() needs: row-level security is forced on the owner as well.
DROP POLICY IF EXISTS owner_sees ON evosense.messages_person;
CREATE POLICY owner_sees ON evosense.messages_person FOR SELECT TO evosense_owner USING (true);
