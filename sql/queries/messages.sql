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

-- Wherever vectors are written: none that an adoption of another model, later in the log, has made of no use. An event
-- that was parked may come after it.

-- name: put_search_vectors(message_ids, tenant_ids, models, positions, embeddings)!
INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, position, embedding)
SELECT message_id, tenant_id, model, position, embedding::halfvec(768)
FROM unnest(:message_ids::bigint[], :tenant_ids::uuid[], :models::text[], :positions::bigint[], :embeddings::vector[])
    AS t(message_id, tenant_id, model, position, embedding)
WHERE NOT EXISTS (
    SELECT FROM evosense.messages_embeddingmodel AS a
    WHERE a.tenant_id = t.tenant_id AND a.adopted AND a.model <> t.model AND a.position > t.position
);

-- name: load_search_vectors#
COPY evosense.messages_embedding (message_id, tenant_id, model, position, embedding) FROM STDIN (FORMAT binary);

-- name: put_keys(message_ids, tenant_ids, keys)!
INSERT INTO evosense.messages_messagekey (message_id, tenant_id, key)
SELECT message_id, tenant_id, key
FROM unnest(:message_ids::bigint[], :tenant_ids::uuid[], :keys::uuid[]) AS t(message_id, tenant_id, key);

-- name: load_keys#
COPY evosense.messages_messagekey (message_id, tenant_id, key) FROM STDIN (FORMAT binary);

-- name: keep_keys(message_ids, tenant_ids, keys)!
-- Of messages that were deleted: once they are sealed away, their own event no longer tells their key.
INSERT INTO evosense.messages_messagekey (message_id, tenant_id, key)
SELECT t.message_id, t.tenant_id, t.key
FROM unnest(:message_ids::bigint[], :tenant_ids::uuid[], :keys::uuid[]) AS t(message_id, tenant_id, key)
JOIN evosense.messages_message AS m ON m.id = t.message_id
ON CONFLICT (message_id) DO NOTHING;

-- name: forget_vectors(ids, tenant_ids)!
-- Those of a text that is no longer there.
DELETE FROM evosense.messages_embedding AS e
USING unnest(:ids::bigint[], :tenant_ids::uuid[]) AS t(id, tenant_id)
WHERE e.tenant_id = t.tenant_id AND e.message_id = t.id;

-- name: learn(ids, texts, sentiments, emotions, satisfactions, tones, summaries, models, positions, embeddings)!
-- Null where the batch says nothing of it: an analysis and a vector themselves are never null. With another text, what
-- was known of the old one goes. The vector goes on to the search by way of the row that was updated: a message that
-- retention has deleted leaves none behind. No model: the search has no use for the vector any more.
WITH learned AS (
    UPDATE evosense.messages_message AS m
    SET text = coalesce(l.text, m.text),
        sentiment = CASE WHEN l.text IS NULL THEN coalesce(l.sentiment, m.sentiment) ELSE l.sentiment END,
        emotion = CASE WHEN l.text IS NULL THEN coalesce(l.emotion, m.emotion) ELSE l.emotion END,
        satisfaction = CASE WHEN l.text IS NULL THEN coalesce(l.satisfaction, m.satisfaction) ELSE l.satisfaction END,
        tone = CASE WHEN l.text IS NULL THEN coalesce(l.tone, m.tone) ELSE l.tone END,
        summary = CASE WHEN l.text IS NULL THEN coalesce(l.summary, m.summary) ELSE l.summary END,
        -- With its length said: without, the vector of the row would be unpacked to check it, and stored anew.
        embedding = CASE
            WHEN l.text IS NULL THEN coalesce(l.embedding::vector(768), m.embedding) ELSE l.embedding::vector(768)
        END
    FROM unnest(
        :ids::bigint[], :texts::text[], :sentiments::float8[], :emotions::text[], :satisfactions::int[],
        :tones::text[], :summaries::text[], :models::text[], :positions::bigint[], :embeddings::vector[]
    ) AS l(id, text, sentiment, emotion, satisfaction, tone, summary, model, position, embedding)
    WHERE m.id = l.id
    RETURNING m.id, m.tenant_id, l.model, l.position, l.embedding
)
INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, position, embedding)
SELECT id, tenant_id, model, position, embedding::halfvec(768)
FROM learned AS l
WHERE model IS NOT NULL AND NOT EXISTS (
    SELECT FROM evosense.messages_embeddingmodel AS a
    WHERE a.tenant_id = l.tenant_id AND a.adopted AND a.model <> l.model AND a.position > l.position
)
ON CONFLICT (tenant_id, model, message_id) DO UPDATE
SET position = excluded.position, embedding = excluded.embedding;

-- name: put_earlier_vectors(ids, models, positions, embeddings)!
-- Of messages that are there: vectors that are not the message's latest, but the latest of their model.
INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, position, embedding)
SELECT m.id, m.tenant_id, v.model, v.position, v.embedding::halfvec(768)
FROM unnest(:ids::bigint[], :models::text[], :positions::bigint[], :embeddings::vector[])
    AS v(id, model, position, embedding)
JOIN evosense.messages_message AS m USING (id)
WHERE NOT EXISTS (
    SELECT FROM evosense.messages_embeddingmodel AS a
    WHERE a.tenant_id = m.tenant_id AND a.adopted AND a.model <> v.model AND a.position > v.position
)
ON CONFLICT (tenant_id, model, message_id) DO UPDATE
SET position = excluded.position, embedding = excluded.embedding;

-- name: put_models(tenant_ids, positions, models, adopteds, ats)!
INSERT INTO evosense.messages_embeddingmodel (tenant_id, position, model, adopted, decided_at)
SELECT tenant_id, position, model, adopted, decided_at
FROM unnest(:tenant_ids::uuid[], :positions::bigint[], :models::text[], :adopteds::boolean[], :ats::timestamptz[])
    AS t(tenant_id, position, model, adopted, decided_at);

-- name: forget_other_models(tenant_ids, models, positions)!
-- With an adoption go the tenant's vectors of other models: those of before it, so that the size of batches changes
-- nothing.
DELETE FROM evosense.messages_embedding AS e
USING unnest(:tenant_ids::uuid[], :models::text[], :positions::bigint[]) AS a(tenant_id, model, position)
WHERE e.tenant_id = a.tenant_id AND e.model <> a.model AND e.position < a.position;

-- Whose a hash is, at a position of the log: the last link before it counts, or else the first behind it. The same rule
-- stands in projections/people.py.

-- name: put_persons(tenant_ids, aliases, positions, persons)!
INSERT INTO evosense.messages_person (tenant_id, alias, position, person)
SELECT tenant_id, alias, position, person
FROM unnest(:tenant_ids::uuid[], :aliases::text[], :positions::bigint[], :persons::text[])
    AS t(tenant_id, alias, position, person);

-- name: persons_of(tenant_ids, names)
-- All links of those of these hashes that are LIDs', in order.
SELECT p.tenant_id, p.alias, p.position, p.person
FROM unnest(:tenant_ids::uuid[], :names::text[]) AS n(tenant_id, name)
JOIN evosense.messages_person AS p ON p.tenant_id = n.tenant_id AND p.alias = n.name
ORDER BY p.position;

-- name: rename_people(tenant_ids, aliases)!
-- Rows that stand under these LIDs, as chat, as sender or as both.
WITH found AS (
    SELECT m.id
    FROM unnest(:tenant_ids::uuid[], :aliases::text[]) AS l(tenant_id, alias)
    JOIN evosense.messages_message AS m ON m.chat_id = l.alias AND m.tenant_id = l.tenant_id
    UNION
    SELECT m.id
    FROM unnest(:tenant_ids::uuid[], :aliases::text[]) AS l(tenant_id, alias)
    JOIN evosense.messages_message AS m ON m.sender = l.alias AND m.tenant_id = l.tenant_id
)
UPDATE evosense.messages_message AS m
SET chat_id = coalesce((
        SELECT p.person FROM evosense.messages_person AS p
        WHERE p.tenant_id = m.tenant_id AND p.alias = m.chat_id
        ORDER BY p.position < m.id DESC, abs(p.position - m.id)
        LIMIT 1
    ), m.chat_id),
    sender = coalesce((
        SELECT p.person FROM evosense.messages_person AS p
        WHERE p.tenant_id = m.tenant_id AND p.alias = m.sender
        ORDER BY p.position < m.id DESC, abs(p.position - m.id)
        LIMIT 1
    ), m.sender)
FROM found
WHERE m.id = found.id;

-- name: rename_all_people()!
-- The same for all LIDs at once, over tables that have no indexes yet.
WITH lids AS MATERIALIZED (
    SELECT DISTINCT tenant_id, alias FROM evosense.messages_person
), found AS (
    SELECT m.id FROM lids AS l JOIN evosense.messages_message AS m ON m.chat_id = l.alias AND m.tenant_id = l.tenant_id
    UNION
    SELECT m.id FROM lids AS l JOIN evosense.messages_message AS m ON m.sender = l.alias AND m.tenant_id = l.tenant_id
)
UPDATE evosense.messages_message AS m
SET chat_id = coalesce((
        SELECT p.person FROM evosense.messages_person AS p
        WHERE p.tenant_id = m.tenant_id AND p.alias = m.chat_id
        ORDER BY p.position < m.id DESC, abs(p.position - m.id)
        LIMIT 1
    ), m.chat_id),
    sender = coalesce((
        SELECT p.person FROM evosense.messages_person AS p
        WHERE p.tenant_id = m.tenant_id AND p.alias = m.sender
        ORDER BY p.position < m.id DESC, abs(p.position - m.id)
        LIMIT 1
    ), m.sender)
FROM found
WHERE m.id = found.id;

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

-- name: chat_now(chat_id)^
-- Asked for by itself, so that the page is planned for the very chat.
SELECT evosense.person_of(:chat_id::text) AS chat_id;

-- name: message(id)^
SELECT id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone, summary,
    embedding IS NOT NULL AS embedded
FROM evosense.messages_message
WHERE id = :id;
