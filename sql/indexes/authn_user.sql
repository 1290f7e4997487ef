CREATE INDEX idx_user_tenant ON evosense.authn_user (tenant_id);
CREATE INDEX idx_user_username ON evosense.authn_user (username);
CREATE INDEX idx_user_email ON evosense.authn_user (email);
