CREATE TABLE IF NOT EXISTS evosense_ops.schema_migrations (
    version integer PRIMARY KEY CHECK (version > 0),
    name text NOT NULL,
    checksum text NOT NULL,
    files jsonb NOT NULL, -- {path: SHA-256}: so that a changed file can be named
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text NOT NULL -- version of the program
);
