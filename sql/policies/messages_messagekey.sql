ALTER TABLE evosense.messages_messagekey ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_messagekey FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, as everywhere (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.messages_messagekey;
CREATE POLICY app_tenant ON evosense.messages_messagekey FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.messages_messagekey;
CREATE POLICY projector_all ON evosense.messages_messagekey TO evosense_projector USING (true) WITH CHECK (true);

-- What cleanup_old_messages() and what it sets off need, and messages_of_keys(): row-level security is forced on the
-- owner as well.
DROP POLICY IF EXISTS owner_cleanup ON evosense.messages_messagekey;
CREATE POLICY owner_cleanup ON evosense.messages_messagekey TO evosense_owner USING (true);
