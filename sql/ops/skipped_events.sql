CREATE TABLE evosense_ops.skipped_events (
    position bigint PRIMARY KEY,
    tenant_id uuid,
    stream_id uuid NOT NULL,
    event_type text NOT NULL,
    reason text NOT NULL, -- the operator's; never personal data
    skipped_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE evosense_ops.skipped_events IS
    'Events that an operator decided to leave out of the read models for ever: rebuilds leave them out, too';
