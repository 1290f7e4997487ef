-- What the doors did with what a connection sent, in counts by the hour; in hour '-infinity' since the beginning. Not
-- facts of the log: a duplicate leaves no event. Each process adds up in memory and writes every second (ADR 0034).
CREATE TABLE evosense_ops.connection_activity (
    connection_id uuid NOT NULL, -- the connection's stream
    tenant_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    transport text NOT NULL,
    outcome text NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (connection_id, hour, transport, outcome, kind, reason)
);
CREATE INDEX connection_activity_hour ON evosense_ops.connection_activity (hour);
CREATE INDEX connection_activity_tenant ON evosense_ops.connection_activity (tenant_id);
