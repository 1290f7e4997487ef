-- What models answered and cost in the last seven days (UTC), by tenant, model and purpose. `answered by cache` cost
-- nothing; prices are those that the configuration names.
SELECT
    t.name AS tenant,
    u.model_name AS model,
    u.purpose,
    sum(u.calls)::bigint AS calls,
    sum(u.cached)::bigint AS answered_by_cache,
    sum(u.refused)::bigint AS refused,
    sum(u.input_tokens)::bigint AS input_tokens,
    sum(u.output_tokens)::bigint AS output_tokens,
    (sum(u.cost) / 1000000.0)::float8 AS usd,
    (coalesce(sum(u.cost) FILTER (WHERE u.day = (now() AT TIME ZONE 'UTC')::date), 0) / 1000000.0)::float8 AS usd_today
FROM evosense_ops.model_usage u
LEFT JOIN evosense.tenancy_tenant t ON t.id = u.tenant_id
WHERE u.day > (now() AT TIME ZONE 'UTC')::date - 7
GROUP BY t.name, u.tenant_id, u.model_name, u.purpose
ORDER BY usd DESC, tenant, model, u.purpose;
