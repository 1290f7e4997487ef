CREATE TABLE IF NOT EXISTS evosense_ops.repeatable_objects (
    file text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
