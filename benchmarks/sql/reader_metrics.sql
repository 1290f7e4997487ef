SELECT * FROM evosense.tenant_metrics WHERE tenant_id = %(tenant_id)s
