CREATE TABLE evosense_ops.import_progress (
    connection_id uuid NOT NULL,
    source text NOT NULL, -- SHA-256 of the source's first 64 KiB
    position jsonb NOT NULL, -- up to where everything is in the log, and the SHA-256 of what stands before it
    report jsonb NOT NULL, -- counts, and the places of what was refused: never content, never names of files
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_id, source)
);
COMMENT ON TABLE evosense_ops.import_progress IS 'How far evosense import has come with a source';
