-- name: put_user(id, tenant_id, username, password, email, first_name, last_name, role, is_superuser, joined)!
INSERT INTO evosense.authn_user (
    id, tenant_id, username, password, email, first_name, last_name, role, is_superuser, is_staff, is_active,
    date_joined
)
VALUES (
    :id, :tenant_id, :username, :password, :email, :first_name, :last_name, :role, :is_superuser, :is_superuser, true,
    :joined
);

-- name: set_password(id, password)!
UPDATE evosense.authn_user SET password = :password WHERE id = :id;

-- name: set_role(id, role)!
UPDATE evosense.authn_user SET role = :role WHERE id = :id;

-- name: deactivate(id)!
UPDATE evosense.authn_user SET is_active = false WHERE id = :id;

-- name: set_last_logins(ids, ats)!
UPDATE evosense.authn_user AS u SET last_login = l.at
FROM unnest(:ids::bigint[], :ats::timestamptz[]) AS l(id, at)
WHERE u.id = l.id;

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
