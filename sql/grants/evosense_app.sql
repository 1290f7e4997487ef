REVOKE ALL ON ALL TABLES IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_app;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evosense, evosense_log, evosense_ops FROM evosense_app;

GRANT USAGE ON SCHEMA evosense TO evosense_app;
GRANT SELECT ON
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
    evosense.metrics_latency_span,
    evosense.metrics_hour,
    evosense.metrics_latency_hour,
    evosense.tenant_metrics,
    evosense.tenant_metrics_by_author,
    evosense.tenant_metrics_by_day
TO evosense_app;
-- search_words() and what else text_search() calls is its owner's.
GRANT EXECUTE ON FUNCTION
    evosense.semantic_search(uuid, vector, integer, float),
    evosense.embedding_model(uuid),
    evosense.person_of(text),
    evosense.matching_messages(
        uuid, bigint[], timestamptz, timestamptz, text, bigint, float, float, text, text
    ),
    evosense.nearest_messages(
        uuid, vector, text, integer, float, bigint, timestamptz, timestamptz, text, bigint, float, float, text, text
    ),
    evosense.text_search(
        text, integer, timestamptz, timestamptz, text, bigint, float, float, text, text
    )
TO evosense_app;
-- Where the vector search has indexes: rows of the session's tenant alone.
GRANT SELECT ON evosense_ops.vector_segments TO evosense_app;
-- What a connection sent and what became of it: of the session's tenant alone, too.
GRANT SELECT ON evosense_ops.connection_activity, evosense_ops.connection_last TO evosense_app;
-- What models answered and cost: of the session's tenant alone, too.
GRANT SELECT ON evosense_ops.model_usage TO evosense_app;
-- How its connections' links stand: rows of the session's tenant alone, and not which process holds them.
GRANT SELECT (
    connection_id, tenant_id, transport, held_until, state, since, heartbeat_at, attempts, error, last_event_at
) ON evosense_ops.connection_links TO evosense_app;
GRANT EXECUTE ON FUNCTION
    evosense.vector_segments_of(uuid, text),
    evosense.nearest_by_index(uuid, text, halfvec, bigint),
    evosense.passing_messages(
        uuid, bigint[], bigint, timestamptz, timestamptz, text, bigint, float, float, text, text
    )
TO evosense_app;
