-- What the log holds of one stream, for people: what `evosense history` and the API's histories ask.

-- name: recorded_events(stream_id, after, page)
-- A stream's next events behind a version, with where and when they were recorded.
SELECT notification_id, originator_version, topic, state, recorded_at
FROM evosense_log.stored_events
WHERE originator_id = :stream_id AND originator_version > :after
ORDER BY originator_version
LIMIT :page;

-- name: act_for(tenant_id)$
-- Until the transaction ends, row-level security shows this tenant's rows.
SELECT set_config('evosense.tenant_id', :tenant_id, true);

-- name: inferences_of(message_id)
-- The inferences of a message, found by the index on message_id.
SELECT id FROM evosense.experiments_inference WHERE message_id = :message_id ORDER BY id;
