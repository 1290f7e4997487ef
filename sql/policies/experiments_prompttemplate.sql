-- The documented table has no tenant: prompt templates belong to the installation, and every tenant may read them.
ALTER TABLE evosense.experiments_prompttemplate ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense.experiments_prompttemplate FORCE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS app_global ON evosense.experiments_prompttemplate;
CREATE POLICY app_global ON evosense.experiments_prompttemplate FOR SELECT TO evosense_app USING (true);

DROP POLICY IF EXISTS projector_all ON evosense.experiments_prompttemplate;
CREATE POLICY projector_all ON evosense.experiments_prompttemplate TO evosense_projector USING (true) WITH CHECK (true);
