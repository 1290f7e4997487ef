REVOKE ALL ON ALL TABLES IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_projector;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evosense, evosense_log FROM evosense_projector;

GRANT USAGE ON SCHEMA evosense, evosense_log, evosense_ops TO evosense_projector;
GRANT SELECT ON evosense_log.stored_events, evosense_log.tenant_keys TO evosense_projector;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON
    evosense.tenancy_tenant,
    evosense.authn_user,
    evosense.connections_evolutionconnection,
    evosense.connections_companysender,
    evosense.messages_message,
    evosense.messages_embedding,
    evosense.experiments_prompttemplate,
    evosense.experiments_inference,
    evosense.experiments_experimentrun,
    evosense.billing_paymentaccount,
    evosense.billing_billingevent,
    evosense.metrics_message,
    evosense.metrics_rollup,
    evosense.metrics_emotion,
    evosense.metrics_latency
TO evosense_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    evosense_ops.projection_checkpoints,
    evosense_ops.parked_events
TO evosense_projector;
