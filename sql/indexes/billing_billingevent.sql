CREATE INDEX idx_billing_event_tenant ON evosense.billing_billingevent (tenant_id);
CREATE INDEX idx_billing_event_type ON evosense.billing_billingevent (event_type);
CREATE INDEX idx_billing_event_stripe ON evosense.billing_billingevent (stripe_event_id);
CREATE INDEX idx_billing_event_processed ON evosense.billing_billingevent (processed);
CREATE INDEX idx_billing_event_created ON evosense.billing_billingevent (created_at);
