CREATE TABLE evosense_ops.builds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL UNIQUE CHECK (
        schema_name ~ '^[a-z_][a-z0-9_]{0,62}$'
        AND schema_name NOT IN ('evosense', 'evosense_log', 'evosense_ops', 'public', 'information_schema')
        AND NOT starts_with(schema_name, 'pg_')
    ),
    -- kept: tables that were live before a swap
    purpose text NOT NULL CHECK (purpose IN ('rebuild', 'audit', 'replay', 'kept')),
    projections text[] NOT NULL,
    tables text[] NOT NULL, -- without partitions, which go with their parent
    state text NOT NULL DEFAULT 'loading' CHECK (state IN ('loading', 'finishing', 'ready')),
    -- last log position folded into it; moved with the rows, by compare and set
    position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    positions bigint[], -- of kept tables: by shard, where the shards stood apart
    parked jsonb NOT NULL DEFAULT '[]', -- of kept tables: what they are without, as [{position, projections}]
    until bigint, -- of a replay: the position that it shows
    fingerprint text NOT NULL, -- of the program's projectors: a build is continued only by the same
    schema_version integer NOT NULL,
    analysed text[] NOT NULL DEFAULT '{}', -- tables whose statistics were taken
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE evosense_ops.builds IS
    'Read models in schemas of their own: being built, shown as they once were, or kept from before a swap';
