CREATE INDEX idx_connection_tenant ON evosense.connections_evolutionconnection (tenant_id);
CREATE INDEX idx_connection_active ON evosense.connections_evolutionconnection (is_active);
