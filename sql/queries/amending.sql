-- What applying edits and deletions asks of the read models.

-- name: messages_of_keys(keys)
-- Which messages have these keys; a row's id is the position of the message's first event.
SELECT tenant_id, key, message_id FROM evosense.messages_of_keys(:keys::uuid[]);

-- name: projected(projection, tenant_ids)
-- The position that a projection has reached for each of these tenants; no row where it has never run.
SELECT t.tenant_id, c.position
FROM unnest(:tenant_ids::uuid[]) AS t(tenant_id)
JOIN evosense_ops.projection_checkpoints AS c
    ON c.projection = :projection AND c.shard = evosense_ops.shard_of(t.tenant_id, c.shards);
