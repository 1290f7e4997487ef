-- Documented retention by plan; returns how many messages were deleted, over all tenants. Of the documented text only
-- the counting is corrected. Triggers take vectors and totals along. Only the owner of the schema may call it.
-- The log is untouched: until retention is an event of its own, a rebuild brings the messages back.
CREATE OR REPLACE FUNCTION evosense.cleanup_old_messages() RETURNS INTEGER
LANGUAGE plpgsql AS $$
DECLARE
    tenant_record RECORD;
    cutoff_date DATE;
    deleted_here INTEGER;
    deleted_count INTEGER := 0;
BEGIN
    -- No projector between a message's deletion and that of its share of the totals.
    LOCK TABLE evosense.messages_message, evosense.experiments_inference, evosense.metrics_message
        IN SHARE ROW EXCLUSIVE MODE;

    FOR tenant_record IN
        SELECT id, plan FROM evosense.tenancy_tenant WHERE status = 'active'
    LOOP
        cutoff_date := CURRENT_DATE - CASE tenant_record.plan
            WHEN 'starter' THEN INTERVAL '30 days'
            WHEN 'pro' THEN INTERVAL '180 days'
            WHEN 'scale' THEN INTERVAL '365 days'
            WHEN 'enterprise' THEN INTERVAL '730 days'
            ELSE INTERVAL '30 days'
        END;

        DELETE FROM evosense.messages_message
        WHERE tenant_id = tenant_record.id AND created_at < cutoff_date;

        GET DIAGNOSTICS deleted_here = ROW_COUNT;
        deleted_count := deleted_count + deleted_here;
    END LOOP;

    RETURN deleted_count;
END
$$;
