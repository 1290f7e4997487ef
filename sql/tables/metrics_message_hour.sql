-- What a message counts as in metrics_hour. NULL in rows from before this migration: they are in no hour until
-- `evosense rebuild metrics`.
ALTER TABLE evosense.metrics_message
    ADD COLUMN hour integer, -- whole hours since the beginning of 1970 in UTC
    ADD COLUMN connection_id bigint,
    ADD COLUMN tone varchar(40);
