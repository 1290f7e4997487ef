CREATE TABLE evosense_ops.parked_events (
    subscriber text NOT NULL,
    position bigint NOT NULL,
    tenant_id uuid,
    stream_id uuid,
    event_type text,
    reason text, -- never personal data: it is shown to operators
    attempts integer,
    parked_at timestamptz DEFAULT now(),
    PRIMARY KEY (subscriber, position)
);
COMMENT ON TABLE evosense_ops.parked_events IS
    'Events that a subscriber could not take, set aside so that the rest goes on';
