SELECT id FROM evosense.messages_message WHERE tenant_id = %(tenant_id)s ORDER BY id LIMIT 5000
