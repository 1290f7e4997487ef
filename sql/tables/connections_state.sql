-- In which state a connection's Evolution instance is, as far as it has told (docs/connections.md); no row where it has
-- told nothing. Beside the documented table, which keeps its columns.
CREATE TABLE evosense.connections_state (
    connection_id bigint PRIMARY KEY REFERENCES evosense.connections_evolutionconnection (id) ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    state varchar(16) NOT NULL CHECK (state IN ('open', 'connecting', 'close')),
    reason integer,
    changed_at timestamptz NOT NULL
);
