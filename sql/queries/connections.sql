-- name: put_connection(id, tenant_id, name, evo_ws_url, evo_token, at)!
INSERT INTO evosense.connections_evolutionconnection (
    id, tenant_id, name, evo_ws_url, evo_token, is_active, created_at, updated_at
)
VALUES (:id, :tenant_id, :name, :evo_ws_url, :evo_token, true, :at, :at);

-- name: put_company_sender(connection_id, tenant_id, sender)!
INSERT INTO evosense.connections_companysender (connection_id, tenant_id, sender)
VALUES (:connection_id, :tenant_id, :sender);

-- name: set_token(id, evo_token, at)!
UPDATE evosense.connections_evolutionconnection SET evo_token = :evo_token, updated_at = :at WHERE id = :id;

-- name: set_active(id, is_active, at)!
UPDATE evosense.connections_evolutionconnection SET is_active = :is_active, updated_at = :at WHERE id = :id;

-- name: connections(after, page)
SELECT id, tenant_id, name, evo_ws_url, is_active, created_at, updated_at
FROM evosense.connections_evolutionconnection
WHERE id > :after
ORDER BY id
LIMIT :page;

-- name: connection(id)^
SELECT id, tenant_id, name, evo_ws_url, is_active, created_at, updated_at
FROM evosense.connections_evolutionconnection
WHERE id = :id;
