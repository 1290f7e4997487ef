-- name: put_connections(ids, tenant_ids, names, evo_ws_urls, evo_tokens, actives, created_ats, updated_ats)!
INSERT INTO evosense.connections_evolutionconnection (
    id, tenant_id, name, evo_ws_url, evo_token, is_active, created_at, updated_at
)
SELECT id, tenant_id, name, evo_ws_url, evo_token, is_active, created_at, updated_at
FROM unnest(
    :ids::bigint[], :tenant_ids::uuid[], :names::text[], :evo_ws_urls::text[], :evo_tokens::text[], :actives::bool[],
    :created_ats::timestamptz[], :updated_ats::timestamptz[]
) AS t(id, tenant_id, name, evo_ws_url, evo_token, is_active, created_at, updated_at);

-- name: put_company_senders(connection_ids, tenant_ids, senders)!
INSERT INTO evosense.connections_companysender (connection_id, tenant_id, sender)
SELECT connection_id, tenant_id, sender
FROM unnest(:connection_ids::bigint[], :tenant_ids::uuid[], :senders::text[]) AS t(connection_id, tenant_id, sender);

-- name: change_connections(ids, evo_tokens, actives, updated_ats)!
-- Null where nothing changed: neither token nor state is ever set to null.
UPDATE evosense.connections_evolutionconnection AS e
SET evo_token = coalesce(c.evo_token, e.evo_token),
    is_active = coalesce(c.is_active, e.is_active),
    updated_at = c.updated_at
FROM unnest(:ids::bigint[], :evo_tokens::text[], :actives::bool[], :updated_ats::timestamptz[])
    AS c(id, evo_token, is_active, updated_at)
WHERE e.id = c.id;

-- name: put_connection_states(connection_ids, tenant_ids, states, reasons, changed_ats)!
INSERT INTO evosense.connections_state (connection_id, tenant_id, state, reason, changed_at)
SELECT connection_id, tenant_id, state, reason, changed_at
FROM unnest(:connection_ids::bigint[], :tenant_ids::uuid[], :states::text[], :reasons::int[], :changed_ats::timestamptz[])
    AS t(connection_id, tenant_id, state, reason, changed_at)
ON CONFLICT (connection_id) DO UPDATE
SET state = excluded.state, reason = excluded.reason, changed_at = excluded.changed_at;

-- name: connections(after, page)
SELECT e.id, e.tenant_id, e.name, e.evo_ws_url, e.is_active, e.created_at, e.updated_at,
    s.state, s.reason AS state_reason, s.changed_at AS state_changed_at
FROM evosense.connections_evolutionconnection e
LEFT JOIN evosense.connections_state s ON s.connection_id = e.id
WHERE e.id > :after
ORDER BY e.id
LIMIT :page;

-- name: connection(id)^
SELECT e.id, e.tenant_id, e.name, e.evo_ws_url, e.is_active, e.created_at, e.updated_at,
    s.state, s.reason AS state_reason, s.changed_at AS state_changed_at
FROM evosense.connections_evolutionconnection e
LEFT JOIN evosense.connections_state s ON s.connection_id = e.id
WHERE e.id = :id;
