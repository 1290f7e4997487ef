-- The vector index, kept by `evosense vector maintain` and shown by `evosense vector status`; all as evosense_owner.

-- name: try_lock()$
SELECT pg_try_advisory_lock(hashtext('evosense vector index'));

-- name: be_present()$
-- For as long as the session lasts, see nobody_is_present.
SELECT true FROM (SELECT pg_advisory_lock_shared(hashtext('evosense vector keeper'))) AS held;

-- name: nobody_is_present()$
-- Whether no process keeps the vector index. Takes the lock where it is free: for a session that ends at once.
SELECT pg_try_advisory_lock(hashtext('evosense vector keeper'));

-- name: tenants(tenant)
-- Each tenant and model with vectors. A tenant has one model, or two while it moves: the first and the last of the index.
SELECT t.id AS tenant_id, t.name, m.model
FROM evosense.tenancy_tenant t
CROSS JOIN LATERAL (
    SELECT min(e.model) AS first, max(e.model) AS last FROM evosense.messages_embedding e WHERE e.tenant_id = t.id
) ends
CROSS JOIN LATERAL (SELECT ends.first UNION SELECT ends.last) AS m(model)
WHERE m.model IS NOT NULL AND (:tenant::uuid IS NULL OR t.id = :tenant::uuid)
ORDER BY t.id, m.model;

-- name: segments(tenant_id, model)
SELECT s.id, s.after_id, s.upto_id, s.index_name, s.vectors, s.made_at,
    coalesce(x.indisvalid, false) AS usable, pg_relation_size(x.indexrelid) AS bytes
FROM evosense_ops.vector_segments s
LEFT JOIN pg_index x ON x.indexrelid = to_regclass('evosense.' || s.index_name)
WHERE s.tenant_id = :tenant_id AND s.model = :model
ORDER BY s.after_id, s.upto_id;

-- name: vectors_between(tenant_id, model, after_id, upto_id)$
SELECT count(*)
FROM evosense.messages_embedding
WHERE tenant_id = :tenant_id AND model = :model AND message_id > :after_id
    AND (:upto_id::bigint IS NULL OR message_id <= :upto_id::bigint);

-- name: end_of_stretch(tenant_id, model, after_id, most)$
-- Where a stretch of so many vectors ends; the last one where there are fewer, and 0 where there are none.
SELECT coalesce(max(message_id), 0)
FROM (
    SELECT message_id
    FROM evosense.messages_embedding
    WHERE tenant_id = :tenant_id AND model = :model AND message_id > :after_id
    ORDER BY message_id
    LIMIT :most
) stretch;

-- name: next_index_name()$
SELECT 'idx_message_embedding_s' || nextval('evosense_ops.vector_segment_names');

-- name: segment_definition(index_name, tenant_id, model, after_id, upto_id)$
SELECT evosense_ops.vector_segment_definition(:index_name, :tenant_id, :model, :after_id, :upto_id);

-- name: vacuum(tenant_id)$
-- The statement that gives back what a tenant's deleted vectors held.
SELECT coalesce(
    (
        SELECT format('VACUUM (SKIP_LOCKED) %%s', e.tableoid::regclass)
        FROM evosense.messages_embedding e
        WHERE e.tenant_id = :tenant_id
        LIMIT 1
    ),
    'SELECT'
);

-- name: add_segment(index_name, tenant_id, model, after_id, upto_id, vectors)!
INSERT INTO evosense_ops.vector_segments (index_name, tenant_id, model, after_id, upto_id, vectors)
VALUES (:index_name, :tenant_id, :model, :after_id, :upto_id, :vectors);

-- name: forget_segments(index_names)!
DELETE FROM evosense_ops.vector_segments WHERE index_name = ANY (:index_names::text[]);

-- name: lost_segments()
-- Segments whose index is gone or can't be used, and those of which no vector is left: the tenant went, or its model.
SELECT s.index_name
FROM evosense_ops.vector_segments s
LEFT JOIN pg_index x ON x.indexrelid = to_regclass('evosense.' || s.index_name)
WHERE x.indisvalid IS NOT TRUE OR NOT EXISTS (
    SELECT FROM evosense.messages_embedding e WHERE e.tenant_id = s.tenant_id AND e.model = s.model
);

-- name: stray_indexes()
-- Indexes that no segment knows of: a build that was interrupted left them, or a swap brought them back.
SELECT c.relname AS index_name
FROM pg_class c
WHERE c.relnamespace = 'evosense'::regnamespace AND c.relkind = 'i' AND c.relname ~ '^idx_message_embedding_s[0-9]+$'
    AND NOT EXISTS (SELECT FROM evosense_ops.vector_segments s WHERE s.index_name = c.relname);

-- name: rebuild_under_way(guard)$
-- A rebuild copies the indexes that it finds, and its swap waits for transactions: it is not disturbed. By the guard that
-- it holds, as builds.sql has it, and not by its record: one that was killed leaves that behind.
SELECT NOT pg_try_advisory_xact_lock('evosense_ops.builds'::regclass::oid::int, :guard);

-- name: sample(tenant_id, model, number)
-- Vectors to ask with, spread evenly over the tenant's messages.
SELECT e.message_id, e.embedding::vector(768)::text AS embedding
FROM (
    SELECT message_id, row_number() OVER (ORDER BY message_id) AS place, count(*) OVER () AS vectors
    FROM evosense.messages_embedding
    WHERE tenant_id = :tenant_id AND model = :model
) chosen
JOIN evosense.messages_embedding e USING (message_id)
WHERE e.tenant_id = :tenant_id AND e.model = :model
    AND mod(chosen.place, greatest(1, chosen.vectors / :number)) = 0
ORDER BY e.message_id
LIMIT :number;

-- name: nearest(tenant_id, model, embedding)
SELECT message_id FROM evosense.nearest_messages(:tenant_id, :embedding::vector, :model, 20, -1);

-- name: nearest_exactly(tenant_id, model, embedding)
-- By comparison with every vector: the same score and order, and no index.
SELECT m.id AS message_id
FROM evosense.messages_embedding e
JOIN evosense.messages_message m ON m.id = e.message_id AND m.tenant_id = e.tenant_id
WHERE e.tenant_id = :tenant_id AND e.model = :model
ORDER BY 1 - (
    CASE WHEN m.embedding::halfvec(768) = e.embedding THEN m.embedding ELSE e.embedding::vector(768) END
    <=> :embedding::vector
) DESC, m.id
LIMIT 20;
