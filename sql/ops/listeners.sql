-- Processes of the listener, when each was last alive, how it stands with Evolution's NATS (`off`, `waiting`, `linked`),
-- and what it has counted since it started, by transport and outcome.
CREATE TABLE evosense_ops.listeners (
    holder text PRIMARY KEY,
    seen_at timestamptz NOT NULL,
    nats varchar(16) NOT NULL,
    nats_error text,
    counted jsonb NOT NULL DEFAULT '{}'
);
