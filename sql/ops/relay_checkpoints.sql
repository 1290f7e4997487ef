CREATE TABLE evosense_ops.relay_checkpoints (
    name text PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0)
);
COMMENT ON TABLE evosense_ops.relay_checkpoints IS 'Last log position that NATS has acknowledged';
