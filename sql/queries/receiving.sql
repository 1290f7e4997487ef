-- name: known_connections(name)
SELECT tenant_id, name FROM evosense.known_connections(:name::text);
