ALTER TABLE evosense_ops.answer_cache ENABLE ROW LEVEL SECURITY;
ALTER TABLE evosense_ops.answer_cache FORCE ROW LEVEL SECURITY;

-- No policy for evosense_app: nobody reads it but who asks models.
DROP POLICY IF EXISTS writer_all ON evosense_ops.answer_cache;
CREATE POLICY writer_all ON evosense_ops.answer_cache TO evosense_writer USING (true) WITH CHECK (true);

DROP POLICY IF EXISTS owner_all ON evosense_ops.answer_cache;
CREATE POLICY owner_all ON evosense_ops.answer_cache TO evosense_owner USING (true) WITH CHECK (true);
