-- name: tenants(wanted)
-- The tenants of that id or name, or all where none is given; with the model that answers for each.
SELECT t.id, t.name, evosense.embedding_model(t.id) AS model
FROM evosense.tenancy_tenant AS t
WHERE :wanted::text IS NULL OR t.id::text = lower(:wanted) OR t.name = :wanted
ORDER BY t.name, t.id;

-- name: vectors()
-- How many vectors of which model each tenant has, and how many messages.
SELECT m.tenant_id, e.model, m.messages, coalesce(e.vectors, 0) AS vectors
FROM (SELECT tenant_id, count(*) AS messages FROM evosense.messages_message GROUP BY tenant_id) AS m
LEFT JOIN (
    SELECT tenant_id, model, count(*) AS vectors FROM evosense.messages_embedding GROUP BY tenant_id, model
) AS e USING (tenant_id)
ORDER BY m.tenant_id, e.model;
