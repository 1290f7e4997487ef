-- Whose a LID is, from a position of the log on: a row for each LidLinked, of which a message goes by the last before it,
-- or else by the first. `alias` is the hash under which messages that named the LID alone would stand; `person` is the
-- hash of the phone, under which they stand.
CREATE TABLE evosense.messages_person (
    tenant_id uuid NOT NULL,
    alias varchar(64) NOT NULL,
    position bigint NOT NULL,
    person varchar(64) NOT NULL,
    PRIMARY KEY (tenant_id, alias, position)
);
