SELECT id, chat_id, sender, text, created_at, sentiment, emotion FROM evosense.messages_message WHERE id = %(id)s
