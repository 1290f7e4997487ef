-- name: put_tenants(ids, names, plans, next_billing_dates, statuses, created_ats, updated_ats)!
INSERT INTO evosense.tenancy_tenant (id, name, plan, next_billing_date, status, created_at, updated_at)
SELECT id, name, plan, next_billing_date, status, created_at, updated_at
FROM unnest(
    :ids::uuid[], :names::text[], :plans::text[], :next_billing_dates::date[], :statuses::text[],
    :created_ats::timestamptz[], :updated_ats::timestamptz[]
) AS t(id, name, plan, next_billing_date, status, created_at, updated_at);

-- name: change_tenants(ids, names, plans, next_billing_dates, statuses, updated_ats)!
-- Null where nothing changed. The next billing date comes with the plan, and then null says that there is none.
UPDATE evosense.tenancy_tenant AS t
SET name = coalesce(c.name, t.name),
    plan = coalesce(c.plan, t.plan),
    next_billing_date = CASE WHEN c.plan IS NULL THEN t.next_billing_date ELSE c.next_billing_date END,
    status = coalesce(c.status, t.status),
    updated_at = c.updated_at
FROM unnest(
    :ids::uuid[], :names::text[], :plans::text[], :next_billing_dates::date[], :statuses::text[],
    :updated_ats::timestamptz[]
) AS c(id, name, plan, next_billing_date, status, updated_at)
WHERE t.id = c.id;

-- name: tenants(after, page)
SELECT id, name, plan, next_billing_date, status, created_at, updated_at
FROM evosense.tenancy_tenant
WHERE :after::uuid IS NULL OR id > :after::uuid
ORDER BY id
LIMIT :page;

-- name: tenant(id)^
SELECT id, name, plan, next_billing_date, status, created_at, updated_at
FROM evosense.tenancy_tenant
WHERE id = :id;
