CREATE TABLE evosense_ops.projectors (
    holder text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
COMMENT ON TABLE evosense_ops.projectors IS 'Processes that project, and when each was last alive';
