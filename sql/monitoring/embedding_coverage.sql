-- How many messages have a vector; without messages the coverage is NULL and not an error.
SELECT
    count(*) AS total_messages,
    count(embedding) AS messages_with_embeddings,
    round(count(embedding) * 100.0 / nullif(count(*), 0), 2) AS embedding_coverage
FROM evosense.messages_message;
