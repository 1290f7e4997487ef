-- How many messages wait for a model behind a server: whose, for what, since when, and why they were put off last
-- (docs/outages.md). A few that are seconds old are work under way; many, or old ones, mean that the model is away, or
-- slower than messages come.
SELECT
    t.name AS tenant,
    b.wants,
    count(*) AS messages,
    min(b.queued_at) AS waiting_since,
    date_trunc('second', now() - min(b.queued_at)) AS waiting_for,
    count(*) FILTER (WHERE b.claimed_until > now()) AS in_hand,
    max(b.attempts) AS most_attempts,
    (array_agg(b.reason ORDER BY b.reason_at DESC NULLS LAST))[1] AS last_reason
FROM evosense_ops.model_backlog b
LEFT JOIN evosense.tenancy_tenant t ON t.id = b.tenant_id
GROUP BY b.tenant_id, t.name, b.wants
ORDER BY waiting_since, tenant, b.wants;
