-- When something last came from a connection, and which state it told last, whether or not that was worth an event.
CREATE TABLE evosense_ops.connection_last (
    connection_id uuid PRIMARY KEY, -- the connection's stream
    tenant_id uuid NOT NULL,
    message_at timestamptz, -- when the last new message was taken
    sent_at timestamptz, -- when the newest message was sent, by its own time
    state text,
    state_at timestamptz
);
CREATE INDEX connection_last_tenant ON evosense_ops.connection_last (tenant_id);
