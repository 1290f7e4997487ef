-- A tenant's messages by the UTC hour in which they were sent, and by everything that series are divided by. A row that
-- falls to nothing goes. No foreign keys, which would be looked up for each row: messages_message_forget() takes the
-- rows away with their messages.
CREATE TABLE evosense.metrics_hour (
    tenant_id uuid NOT NULL,
    hour timestamptz NOT NULL, -- its beginning
    connection_id bigint NOT NULL,
    -- Compared by their bytes, which costs the projector less than comparing by language.
    author varchar(8) COLLATE "C" NOT NULL CHECK (author IN ('customer', 'company')),
    emotion varchar(40) COLLATE "C" NOT NULL, -- '' where messages wait for their analysis
    tone varchar(40) COLLATE "C" NOT NULL, -- likewise
    messages bigint NOT NULL, -- without an emotion none of them is analysed, with one all are
    sentiment_sum numeric NOT NULL,
    satisfaction_sum bigint NOT NULL,
    positive bigint NOT NULL, -- sentiment > 0.1, as documented
    PRIMARY KEY (tenant_id, hour, connection_id, author, emotion, tone)
);
