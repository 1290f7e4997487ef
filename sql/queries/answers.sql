-- name: find_answer(tenant_id, key, since)^
SELECT sealed
FROM evosense_ops.answer_cache
WHERE tenant_id = :tenant_id AND key = :key AND answered_at > :since;

-- name: put_answer(tenant_id, key, sealed)!
-- Nothing of a tenant whose key is gone.
INSERT INTO evosense_ops.answer_cache (tenant_id, key, sealed)
SELECT :tenant_id, :key, :sealed
WHERE EXISTS (SELECT FROM evosense_log.tenant_keys k WHERE k.tenant_id = :tenant_id)
ON CONFLICT (tenant_id, key) DO UPDATE SET sealed = excluded.sealed, answered_at = now();

-- name: forget_old_answers(before)!
DELETE FROM evosense_ops.answer_cache WHERE answered_at <= :before;

-- name: keep_latest_answers(tenant_id, most)!
DELETE FROM evosense_ops.answer_cache
WHERE tenant_id = :tenant_id AND key IN (
    SELECT key
    FROM evosense_ops.answer_cache
    WHERE tenant_id = :tenant_id
    ORDER BY answered_at DESC, key
    OFFSET :most
);
