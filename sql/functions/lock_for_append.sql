-- Holds every other append back until this transaction ends, so that positions ascend in commit order (DESIGN rule 2).
-- An advisory lock, not LOCK TABLE ... EXCLUSIVE: that one needs a privilege to change rows, and conflicts with VACUUM
-- (an autovacuum makes every append wait for deadlock_timeout). The table's trigger takes this one for everybody.
-- `lock_timeout` bounds the wait. The key is this table's oid: one log, one lock.
CREATE OR REPLACE FUNCTION evosense_log.lock_for_append() RETURNS void
LANGUAGE sql VOLATILE
RETURN pg_advisory_xact_lock('evosense_log.stored_events'::regclass::oid::bigint);
