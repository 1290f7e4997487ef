SELECT emotion, count(*), avg(sentiment), avg(satisfaction)
FROM evosense.messages_message
WHERE tenant_id = %(tenant_id)s
GROUP BY emotion
