-- The keyed hash under which a connection's own (fromMe) messages stand in messages_message.sender: with it, SQL can
-- tell what the company wrote from what its customers wrote.
CREATE TABLE evosense.connections_companysender (
    connection_id bigint PRIMARY KEY REFERENCES evosense.connections_evolutionconnection (id) ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    sender varchar(64) NOT NULL
);
