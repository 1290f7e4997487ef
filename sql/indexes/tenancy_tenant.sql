CREATE INDEX idx_tenant_plan ON evosense.tenancy_tenant (plan);
CREATE INDEX idx_tenant_status ON evosense.tenancy_tenant (status);
CREATE INDEX idx_tenant_billing ON evosense.tenancy_tenant (next_billing_date);
