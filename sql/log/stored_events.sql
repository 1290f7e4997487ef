-- The shape of eventsourcing 9.5.6's PostgresApplicationRecorder and two columns of our own: the tenant, so that a
-- tenant's events can be found and its keys erased, and the moment of recording.
CREATE TABLE evosense_log.stored_events (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state bytea NOT NULL,
    notification_id bigserial,
    tenant_id uuid NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (originator_id, originator_version)
) WITH (
    -- Rows are never updated, so nothing is gained by vacuuming for dead rows. The insert-driven vacuum keeps its
    -- defaults: it freezes, and it keeps the visibility map that index-only scans live on.
    autovacuum_vacuum_threshold = 100000000,
    autovacuum_vacuum_scale_factor = 0.5,
    autovacuum_analyze_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.01
);
-- Sealed bytes do not compress: don't try.
ALTER TABLE evosense_log.stored_events ALTER COLUMN state SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX stored_events_notification_id_idx ON evosense_log.stored_events (notification_id);

COMMENT ON COLUMN evosense_log.stored_events.notification_id IS 'Log position; ascends in commit order';
