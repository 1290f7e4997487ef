-- How the listener stands with each connection that is listened to by socket.io, and which process holds it until when;
-- `epoch` grows with every new holder (docs/adr/0035). Not a read model: a dropped link is no fact of the log, and never
-- switches a connection off. `connection_id` is the connection's stream. Rows are renewed all the time, so half of each
-- page is left free for their next versions.
CREATE TABLE evosense_ops.connection_links (
    connection_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    transport varchar(16) NOT NULL,
    holder text,
    epoch bigint NOT NULL DEFAULT 0,
    held_until timestamptz,
    state varchar(16) NOT NULL DEFAULT 'connecting' CHECK (state IN ('connecting', 'linked', 'waiting')),
    since timestamptz NOT NULL DEFAULT clock_timestamp(), -- when it came up, or went down
    heartbeat_at timestamptz,
    attempts integer NOT NULL DEFAULT 0, -- in vain, since the link was last there
    error varchar(32), -- a word of a closed list (api/links.py), never what a server said
    last_event_at timestamptz -- when the last event that is recorded arrived
) WITH (fillfactor = 50);
CREATE INDEX connection_links_tenant ON evosense_ops.connection_links (tenant_id);
