CREATE TABLE evosense_log.tenant_keys (
    tenant_id uuid PRIMARY KEY,
    wrapped_key bytea NOT NULL, -- the tenant's data key, sealed by the master key
    master_key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE evosense_log.tenant_keys IS
    'Data keys of the tenants; without its key a tenant''s events cannot be read';
