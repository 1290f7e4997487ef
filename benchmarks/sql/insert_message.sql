INSERT INTO bench.messages_message (id, tenant_id, chat_id, sender, text, created_at) VALUES (%s, %s, %s, %s, %s, %s)
