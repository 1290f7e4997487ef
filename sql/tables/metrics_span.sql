-- A tenant's messages of six hours, as many small arrays of equal length: an element of each is what the view
-- metrics_hour shows as a row. A row here for each of those would cost the projector one write a message where they are
-- thin. Elements are in the order of hour, connection, author, emotion and tone, by their bytes: the same messages are
-- the same row, however they came. An element that falls to nothing goes, and so does a row. No foreign keys, which
-- would be looked up for each row: messages_message_forget() takes away what was deleted.
CREATE TABLE evosense.metrics_span (
    tenant_id uuid NOT NULL,
    since timestamptz NOT NULL, -- a multiple of six hours, in UTC
    hours smallint[] NOT NULL, -- since then
    connection_ids bigint[] NOT NULL,
    authors text[] COLLATE "C" NOT NULL,
    emotions text[] COLLATE "C" NOT NULL, -- '' where messages wait for their analysis
    tones text[] COLLATE "C" NOT NULL, -- likewise
    messages integer[] NOT NULL, -- without an emotion none of them is analysed, with one all are
    sentiment_sums bigint[] NOT NULL, -- in millionths
    satisfaction_sums integer[] NOT NULL,
    positives integer[] NOT NULL, -- sentiment > 0.1, as documented
    PRIMARY KEY (tenant_id, since)
);
