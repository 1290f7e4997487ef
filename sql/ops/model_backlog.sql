-- What is owed by models behind servers: a row for a message's analysis, and one for its vectors, from when the stream
-- brought the message until the answer is in the log (docs/outages.md, docs/adr/0040). Operational and no fact of the
-- log: whether anything is owed is decided on the message as the log has it. `message_id` is the message's stream.
CREATE TABLE evosense_ops.model_backlog (
    message_id uuid NOT NULL,
    wants varchar(16) NOT NULL CHECK (wants IN ('analysis', 'vectors')),
    tenant_id uuid NOT NULL,
    position bigint NOT NULL, -- of the last event of the message that asked
    event_type text NOT NULL, -- its type, with the version
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_by text, -- the process that asks
    claimed_until timestamptz,
    attempts integer NOT NULL DEFAULT 0, -- that failed by the message's fault, as far as can be told
    unavailable integer NOT NULL DEFAULT 0, -- times that no model could be asked
    reason text, -- why it was put off last; never personal data: it is shown to operators
    reason_at timestamptz,
    PRIMARY KEY (message_id, wants)
) WITH (fillfactor = 70);
-- Both orders, and who has anything at all.
CREATE INDEX model_backlog_order ON evosense_ops.model_backlog (wants, tenant_id, position);
COMMENT ON TABLE evosense_ops.model_backlog IS
    'Messages that wait for a model behind a server, and for which of its answers';
