ALTER TABLE evosense.messages_embedding ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding FORCE ROW LEVEL SECURITY;

-- Written directly and not as a sub-select, which costs the vector search its index (docs/adr/0011).
DROP POLICY IF EXISTS app_tenant ON evosense.messages_embedding;
CREATE POLICY app_tenant ON evosense.messages_embedding FOR SELECT TO evosense_app
    USING (tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid);

DROP POLICY IF EXISTS projector_all ON evosense.messages_embedding;
CREATE POLICY projector_all ON evosense.messages_embedding TO evosense_projector USING (true) WITH CHECK (true);

-- What cleanup_old_messages() and what it sets off need: row-level security is forced on the owner as well.
DROP POLICY IF EXISTS owner_cleanup ON evosense.messages_embedding;
CREATE POLICY owner_cleanup ON evosense.messages_embedding TO evosense_owner USING (true);

-- The partitions are reached through their parent, whose policies then apply. Directly, without a policy, nobody
-- sees a row.
ALTER TABLE evosense.messages_embedding_p00 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p00 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p01 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p01 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p02 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p02 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p03 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p03 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p04 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p04 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p05 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p05 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p06 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p06 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p07 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p07 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p08 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p08 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p09 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p09 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p10 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p10 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p11 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p11 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p12 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p12 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p13 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p13 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p14 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p14 FORCE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p15 ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.messages_embedding_p15 FORCE ROW LEVEL SECURITY;
