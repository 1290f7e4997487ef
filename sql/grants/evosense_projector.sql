REVOKE ALL ON ALL TABLES IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_projector;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_projector;

GRANT USAGE ON SCHEMA evosense, evosense_log, evosense_ops TO evosense_projector;
GRANT SELECT ON evosense_log.stored_events, evosense_log.tenant_keys TO evosense_projector;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON
    evosense.tenancy_tenant,
    evosense.authn_user,
    evosense.connections_evolutionconnection,
    evosense.connections_companysender,
    evosense.connections_state,
    evosense.messages_message,
    evosense.messages_embedding,
    evosense.messages_embeddingmodel,
    evosense.messages_person,
    evosense.messages_messagekey,
    evosense.experiments_prompttemplate,
    evosense.experiments_inference,
    evosense.experiments_experimentrun,
    evosense.billing_paymentaccount,
    evosense.billing_billingevent,
    evosense.metrics_message,
    evosense.metrics_rollup,
    evosense.metrics_emotion,
    evosense.metrics_latency,
    evosense.metrics_span,
    evosense.metrics_latency_span
TO evosense_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    evosense_ops.projection_checkpoints,
    evosense_ops.projectors,
    evosense_ops.parked_events,
    evosense_ops.builds
TO evosense_projector;
GRANT SELECT, INSERT, DELETE ON evosense_ops.skipped_events TO evosense_projector;
-- `evosense monitor` shows which connections are silent, how the sweep stands, what waits for a model, and what models cost.
GRANT SELECT ON
    evosense_ops.connection_sweeps,
    evosense_ops.model_backlog,
    evosense_ops.model_usage
TO evosense_projector;
GRANT EXECUTE ON FUNCTION evosense.connection_habits(timestamptz) TO evosense_projector;
-- `evosense reembed` shows which model answers for whom.
GRANT EXECUTE ON FUNCTION evosense.embedding_model(uuid) TO evosense_projector;
-- Who deletes an inference takes it out of its bucket.
GRANT EXECUTE ON FUNCTION evosense.latency_bucket(integer) TO evosense_projector;
-- Who writes a message writes idx_message_words.
GRANT EXECUTE ON FUNCTION evosense.search_form(text), evosense.search_words(text) TO evosense_projector;
-- The owner's functions that build and swap read models. The steps within them (build_table and others) are nobody's.
GRANT EXECUTE ON FUNCTION
    evosense_ops.build_begin(text, boolean),
    evosense_ops.build_missing(text, text),
    evosense_ops.build_make(text, text, text, text),
    evosense_ops.build_swap(text, text),
    evosense_ops.build_unvalidated(text[]),
    evosense_ops.build_validate(text, text),
    evosense_ops.build_obstacles(text[]),
    evosense_ops.build_orphans(text, text, text, integer),
    evosense_ops.build_drop(text),
    evosense_ops.build_publish(text),
    evosense_ops.shard_of(uuid, integer),
    evosense_ops.audit_tenant_column(regclass),
    evosense_ops.audit_digests(text, text, uuid),
    evosense_ops.audit_differences(text, text, uuid, integer)
TO evosense_projector;
