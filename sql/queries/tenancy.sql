-- name: put_tenants(ids, names, plans, next_billing_dates, statuses, created_ats)!
INSERT INTO evosense.tenancy_tenant (id, name, plan, next_billing_date, status, created_at, updated_at)
SELECT id, name, plan, next_billing_date, status, created_at, created_at
FROM unnest(
    :ids::uuid[], :names::text[], :plans::text[], :next_billing_dates::date[], :statuses::text[],
    :created_ats::timestamptz[]
) AS t(id, name, plan, next_billing_date, status, created_at);

-- name: rename_tenant(id, name, at)!
UPDATE evosense.tenancy_tenant SET name = :name, updated_at = :at WHERE id = :id;

-- name: set_subscription(id, plan, status, next_billing_date, at)!
UPDATE evosense.tenancy_tenant
SET plan = :plan, status = :status, next_billing_date = :next_billing_date, updated_at = :at
WHERE id = :id;

-- name: set_status(id, status, at)!
UPDATE evosense.tenancy_tenant SET status = :status, updated_at = :at WHERE id = :id;

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
