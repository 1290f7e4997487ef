-- name: put_messages(ids, tenant_ids, connection_ids, chat_ids, senders, texts, created_ats, sentiments, emotions, satisfactions, tones, summaries, embeddings)!
INSERT INTO evosense.messages_message (
    id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding
)
SELECT id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone,
    summary, embedding
FROM unnest(
    :ids::bigint[], :tenant_ids::uuid[], :connection_ids::bigint[], :chat_ids::text[], :senders::text[],
    :texts::text[], :created_ats::timestamptz[], :sentiments::float8[], :emotions::text[], :satisfactions::int[],
    :tones::text[], :summaries::text[], :embeddings::vector[]
) AS t(
    id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding
);

-- name: load_messages#
COPY evosense.messages_message (
    id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding
) FROM STDIN (FORMAT binary);

-- name: put_search_vectors(message_ids, tenant_ids, models, embeddings)!
INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, embedding)
SELECT message_id, tenant_id, model, embedding::halfvec(768)
FROM unnest(:message_ids::bigint[], :tenant_ids::uuid[], :models::text[], :embeddings::vector[])
    AS t(message_id, tenant_id, model, embedding);

-- name: load_search_vectors#
COPY evosense.messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN (FORMAT binary);

-- name: learn(ids, sentiments, emotions, satisfactions, tones, summaries, models, embeddings)!
-- Null where the batch says nothing of it: an analysis and a vector themselves are never null. The vector goes on to
-- the search by way of the row that was updated: a message that retention has deleted leaves none behind.
WITH learned AS (
    UPDATE evosense.messages_message AS m
    SET sentiment = coalesce(l.sentiment, m.sentiment),
        emotion = coalesce(l.emotion, m.emotion),
        satisfaction = coalesce(l.satisfaction, m.satisfaction),
        tone = coalesce(l.tone, m.tone),
        summary = coalesce(l.summary, m.summary),
        -- With its length said: without, the vector of the row would be unpacked to check it, and stored anew.
        embedding = coalesce(l.embedding::vector(768), m.embedding)
    FROM unnest(
        :ids::bigint[], :sentiments::float8[], :emotions::text[], :satisfactions::int[], :tones::text[],
        :summaries::text[], :models::text[], :embeddings::vector[]
    ) AS l(id, sentiment, emotion, satisfaction, tone, summary, model, embedding)
    WHERE m.id = l.id
    RETURNING m.id, m.tenant_id, l.model, l.embedding
)
INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, embedding)
SELECT id, tenant_id, model, embedding::halfvec(768)
FROM learned
WHERE embedding IS NOT NULL
ON CONFLICT (tenant_id, message_id) DO UPDATE SET model = excluded.model, embedding = excluded.embedding;

-- name: messages_page(chat_id, since, until, sentiment_min, sentiment_max, emotion, before_at, before_id, page)
-- Newest first; the next page begins behind (before_at, before_id).
SELECT id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding IS NOT NULL AS embedded
FROM evosense.messages_message
WHERE tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid
    AND (:chat_id::text IS NULL OR chat_id = :chat_id::text)
    AND (:since::timestamptz IS NULL OR created_at >= :since::timestamptz)
    AND (:until::timestamptz IS NULL OR created_at < :until::timestamptz)
    AND (:sentiment_min::float8 IS NULL OR sentiment >= :sentiment_min::float8)
    AND (:sentiment_max::float8 IS NULL OR sentiment <= :sentiment_max::float8)
    AND (:emotion::text IS NULL OR emotion = :emotion::text)
    AND (:before_at::timestamptz IS NULL OR (created_at, id) < (:before_at::timestamptz, :before_id::bigint))
ORDER BY created_at DESC, id DESC
LIMIT :page;

-- name: message(id)^
SELECT id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding IS NOT NULL AS embedded
FROM evosense.messages_message
WHERE id = :id;
