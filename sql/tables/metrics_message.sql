-- What each message counts as, at this moment, in metrics_rollup and metrics_emotion: a change is then a difference.
-- No foreign key: messages_message_forget() takes the row away together with its share of the totals, which a cascade
-- would leave behind.
CREATE TABLE evosense.metrics_message (
    message_id bigint PRIMARY KEY,
    tenant_id uuid NOT NULL,
    author varchar(8) NOT NULL CHECK (author IN ('customer', 'company')),
    sentiment float,
    satisfaction integer,
    emotion varchar(40),
    -- One count of analysed messages divides both sums, so a message is analysed in all three or in none.
    CONSTRAINT metrics_message_analysed_check CHECK (num_nulls(sentiment, satisfaction, emotion) IN (0, 3))
);
