CREATE OR REPLACE TRIGGER stored_events_in_commit_order
BEFORE INSERT ON evosense_log.stored_events
FOR EACH STATEMENT EXECUTE FUNCTION evosense_log.stored_events_in_commit_order();
