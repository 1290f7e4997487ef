-- All that the first MessageAnalyzed of a message changes, in one statement.
WITH message AS (
    UPDATE bench_runner.messages_message
    SET sentiment = %(sentiment)s, emotion = %(emotion)s, satisfaction = %(satisfaction)s, tone = %(tone)s,
        summary = %(summary)s
    WHERE id = %(id)s
), counted AS (
    UPDATE bench_runner.metrics_message
    SET sentiment = %(sentiment)s, satisfaction = %(satisfaction)s, emotion = %(emotion)s
    WHERE message_id = %(id)s
    RETURNING tenant_id, author
), rollup AS (
    UPDATE bench_runner.metrics_rollup AS r
    SET analysed = analysed + 1, sentiment_sum = sentiment_sum + %(sentiment)s::numeric,
        satisfaction_sum = satisfaction_sum + %(satisfaction)s, positive = positive + (%(sentiment)s > 0.1)::int
    FROM counted
    WHERE r.tenant_id = counted.tenant_id AND r.author = counted.author
)
INSERT INTO bench_runner.metrics_emotion AS e (tenant_id, author, emotion, messages)
SELECT tenant_id, author, %(emotion)s, 1 FROM counted
ON CONFLICT (tenant_id, author, emotion) DO UPDATE SET messages = e.messages + 1;
