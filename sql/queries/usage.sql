-- name: add_usage(tenant_ids, days, models, purposes, calls, cached, refused, inputs, outputs, costs)!
-- In an order that every process keeps to: no deadlocks. Nothing of a tenant whose key is gone.
INSERT INTO evosense_ops.model_usage AS u (
    tenant_id, day, model_name, purpose, calls, cached, refused, input_tokens, output_tokens, cost
)
SELECT t.tenant_id, t.day, t.model_name, t.purpose, t.calls, t.cached, t.refused, t.inputs, t.outputs, t.cost
FROM unnest(
    :tenant_ids::uuid[], :days::date[], :models::text[], :purposes::text[], :calls::bigint[], :cached::bigint[],
    :refused::bigint[], :inputs::bigint[], :outputs::bigint[], :costs::bigint[]
) AS t(tenant_id, day, model_name, purpose, calls, cached, refused, inputs, outputs, cost)
WHERE EXISTS (SELECT FROM evosense_log.tenant_keys k WHERE k.tenant_id = t.tenant_id)
ORDER BY t.tenant_id, t.day, t.model_name, t.purpose
ON CONFLICT (tenant_id, day, model_name, purpose) DO UPDATE
SET calls = u.calls + excluded.calls,
    cached = u.cached + excluded.cached,
    refused = u.refused + excluded.refused,
    input_tokens = u.input_tokens + excluded.input_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens,
    cost = u.cost + excluded.cost;

-- name: spent(tenant_ids, day)
SELECT tenant_id, sum(cost)::bigint AS cost
FROM evosense_ops.model_usage
WHERE tenant_id = ANY (:tenant_ids::uuid[]) AND day = :day
GROUP BY tenant_id;

-- name: forget_days(before)!
DELETE FROM evosense_ops.model_usage WHERE day < :before;

-- name: forget_tenant(tenant_id)!
DELETE FROM evosense_ops.model_usage WHERE tenant_id = :tenant_id;

-- name: by_day(since, until, most)
-- Of the session's tenant; `until` is the day after the last.
SELECT day, model_name, purpose, calls, cached, refused, input_tokens, output_tokens, cost
FROM evosense_ops.model_usage
WHERE day >= :since AND day < :until
ORDER BY day DESC, model_name, purpose
LIMIT :most;

-- name: of_day(day)
-- Of all tenants.
SELECT tenant_id, sum(calls)::bigint AS calls, sum(cached)::bigint AS cached, sum(refused)::bigint AS refused,
    sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens, sum(cost)::bigint AS cost
FROM evosense_ops.model_usage
WHERE day = :day
GROUP BY tenant_id;
