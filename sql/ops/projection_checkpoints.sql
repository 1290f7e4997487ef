CREATE TABLE evosense_ops.projection_checkpoints (
    projection text PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE evosense_ops.projection_checkpoints IS
    'Last log position whose rows are committed; moved in the same transaction as the rows';
