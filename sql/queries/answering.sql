-- name: see_tenant(tenant_id)$
-- Until the end of the transaction: the role that row-level security binds, and one tenant's rows.
SELECT set_config('role', 'evosense_app', true), set_config('evosense.tenant_id', :tenant_id::text, true);

-- name: model_of(tenant_id)$
-- The model whose vectors answer for the tenant; NULL where it has none.
SELECT evosense.embedding_model(:tenant_id);
