REVOKE ALL ON ALL TABLES IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_writer;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA evosense_log FROM evosense_writer;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_writer;

GRANT USAGE ON SCHEMA evosense_log, evosense_ops TO evosense_writer;
-- No table of the read models: names of connections, and which messages have a key, through these functions.
GRANT USAGE ON SCHEMA evosense TO evosense_writer;
GRANT EXECUTE ON FUNCTION evosense.known_connections(text), evosense.messages_of_keys(uuid[]) TO evosense_writer;
-- Masked texts of before a message, for models that are given them.
GRANT EXECUTE ON FUNCTION evosense.earlier_texts(uuid, bigint[], text[], timestamptz[], integer) TO evosense_writer;
-- When connections last brought a message, and for how long they are used to bring none.
GRANT EXECUTE ON FUNCTION evosense.connection_habits(timestamptz) TO evosense_writer;
-- Append-only by privilege: no UPDATE, no DELETE, no TRUNCATE. What a deleted message said goes by this function alone.
GRANT EXECUTE ON FUNCTION evosense_log.seal_away(uuid, bigint[], bytea[]) TO evosense_writer;
GRANT SELECT, INSERT ON evosense_log.stored_events, evosense_log.tenant_keys TO evosense_writer;
GRANT USAGE ON SEQUENCE evosense_log.stored_events_notification_id_seq TO evosense_writer;
GRANT EXECUTE ON FUNCTION evosense_log.lock_for_append() TO evosense_writer;
-- Wrapping a tenant's key with a new master key changes these two columns and never whose key it is.
GRANT UPDATE (wrapped_key, master_key_id) ON evosense_log.tenant_keys TO evosense_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    evosense_ops.relay_checkpoints,
    evosense_ops.parked_events,
    evosense_ops.connection_activity,
    evosense_ops.connection_last,
    evosense_ops.connection_links,
    evosense_ops.connection_sweeps,
    evosense_ops.listeners,
    evosense_ops.model_backlog,
    evosense_ops.answer_cache,
    evosense_ops.model_usage
TO evosense_writer;
GRANT SELECT, INSERT, UPDATE ON evosense_ops.import_progress TO evosense_writer;
GRANT SELECT ON
    evosense_ops.projection_checkpoints,
    evosense_ops.projectors,
    evosense_ops.builds,
    evosense_ops.skipped_events
TO evosense_writer;
GRANT EXECUTE ON FUNCTION evosense_ops.shard_of(uuid, integer) TO evosense_writer;
