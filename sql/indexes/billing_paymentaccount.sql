CREATE INDEX idx_payment_tenant ON evosense.billing_paymentaccount (tenant_id);
CREATE INDEX idx_payment_stripe_customer ON evosense.billing_paymentaccount (stripe_customer_id);
CREATE INDEX idx_payment_status ON evosense.billing_paymentaccount (status);
