-- Whoever inserts without having called lock_for_append() has it called here, before the first position is drawn.
CREATE OR REPLACE FUNCTION evosense_log.stored_events_in_commit_order() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM evosense_log.lock_for_append();
    RETURN NULL;
END
$$;
