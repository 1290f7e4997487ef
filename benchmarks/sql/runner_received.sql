-- All that one MessageReceived changes, in one statement.
WITH message AS (
    INSERT INTO bench_runner.messages_message (id, tenant_id, connection_id, chat_id, sender, text, created_at)
    VALUES (%(id)s, %(tenant_id)s, %(connection_id)s, %(chat_id)s, %(sender)s, %(text)s, %(created_at)s)
), counted AS (
    INSERT INTO bench_runner.metrics_message (message_id, tenant_id, author)
    VALUES (%(id)s, %(tenant_id)s, %(author)s)
)
INSERT INTO bench_runner.metrics_rollup AS r (
    tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive
)
VALUES (%(tenant_id)s, %(author)s, 1, 0, 0, 0, 0)
ON CONFLICT (tenant_id, author) DO UPDATE SET messages = r.messages + 1;
