-- name: by_meaning(tenant_id, vector, model, depth, threshold, without, since, until, chat_id, connection_id, sentiment_min, sentiment_max, emotion, author)
SELECT message_id, text, sentiment, satisfaction, similarity_score, created_at
FROM evosense.nearest_messages(
    :tenant_id, :vector::vector(768), :model, :depth, :threshold, :without, :since, :until,
    evosense.person_of(:chat_id), :connection_id, :sentiment_min, :sentiment_max, :emotion, :author
);

-- name: by_words(words, depth, since, until, chat_id, connection_id, sentiment_min, sentiment_max, emotion, author)
SELECT message_id, text, sentiment, satisfaction, created_at, snippet, highlights
FROM evosense.text_search(
    :words, :depth, :since, :until, evosense.person_of(:chat_id), :connection_id, :sentiment_min, :sentiment_max,
    :emotion, :author
);

-- name: model_of(tenant_id)^
-- The model whose vectors answer for the tenant; NULL where it has none.
SELECT evosense.embedding_model(:tenant_id) AS model;

-- name: vector_of(id)^
-- The row is there where the message is; vector and model are NULL where the tenant's model has no vector of it. The
-- documented column is the more precise one, and may hold another model's.
SELECT
    CASE WHEN m.embedding::halfvec(768) = e.embedding THEN m.embedding ELSE e.embedding::vector(768) END::text AS vector,
    e.model
FROM evosense.messages_message m
LEFT JOIN evosense.messages_embedding e
    ON e.tenant_id = m.tenant_id AND e.model = evosense.embedding_model(m.tenant_id) AND e.message_id = m.id
WHERE m.id = :id;
