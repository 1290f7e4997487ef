-- evosense: no-transaction
-- What text_search() asks. Beside the documented idx_message_text_gin, which knows accented words alone (docs/adr/0026).
DROP INDEX CONCURRENTLY IF EXISTS evosense.idx_message_words;
CREATE INDEX CONCURRENTLY idx_message_words ON evosense.messages_message USING gin (evosense.search_words(text));
