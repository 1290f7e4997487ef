-- name: put_users(ids, tenant_ids, usernames, passwords, emails, first_names, last_names, roles, superusers, actives, last_logins, joined_ats)!
INSERT INTO evosense.authn_user (
    id, tenant_id, username, password, email, first_name, last_name, role, is_superuser, is_staff, is_active,
    last_login, date_joined
)
SELECT id, tenant_id, username, password, email, first_name, last_name, role, is_superuser, is_superuser, is_active,
    last_login, date_joined
FROM unnest(
    :ids::bigint[], :tenant_ids::uuid[], :usernames::text[], :passwords::text[], :emails::text[], :first_names::text[],
    :last_names::text[], :roles::text[], :superusers::bool[], :actives::bool[], :last_logins::timestamptz[],
    :joined_ats::timestamptz[]
) AS t(
    id, tenant_id, username, password, email, first_name, last_name, role, is_superuser, is_active, last_login,
    date_joined
);

-- name: change_users(ids, passwords, roles, actives, last_logins)!
-- Null where nothing changed: none of them is ever set to null.
UPDATE evosense.authn_user AS u
SET password = coalesce(c.password, u.password),
    role = coalesce(c.role, u.role),
    is_active = coalesce(c.is_active, u.is_active),
    last_login = coalesce(c.last_login, u.last_login)
FROM unnest(:ids::bigint[], :passwords::text[], :roles::text[], :actives::bool[], :last_logins::timestamptz[])
    AS c(id, password, role, is_active, last_login)
WHERE u.id = c.id;

-- name: users(after, page)
SELECT id, tenant_id, username, first_name, last_name, email, role, is_superuser, is_active, last_login, date_joined
FROM evosense.authn_user
WHERE id > :after
ORDER BY id
LIMIT :page;

-- name: user(id)^
SELECT id, tenant_id, username, first_name, last_name, email, role, is_superuser, is_active, last_login, date_joined
FROM evosense.authn_user
WHERE id = :id;
