-- By what an edit or a deletion finds its message: (connection, key.id), as the id of a stream. A message has one key;
-- a key may have several messages. No row for what was projected before this table, until `evosense rebuild messages`.
CREATE TABLE evosense.messages_messagekey (
    message_id bigint PRIMARY KEY,
    tenant_id uuid NOT NULL,
    key uuid NOT NULL
);
