-- Messages and inferences %(first)s to %(last)s of so many tenants, of sizes that fall off by Zipf's law, spread over the
-- year that ends now; every fourth waits for its analysis.
WITH message AS (
    SELECT n,
           -- The inverse of a sum of 1/rank, roughly: ranks from 1 to the number of tenants.
           least(%(tenants)s, floor(power(%(tenants)s + 1, random()))::int) AS rank,
           now() - random() * interval '365 days' AS sent_at,
           n %% 4 <> 0 AS analysed,
           round((random() * 2 - 1)::numeric, 3)::float8 AS sentiment,
           floor(random() * 101)::int AS satisfaction,
           20 + floor(random() * 3000)::int AS latency
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), stored AS (
    INSERT INTO evosense.messages_message (
        id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, emotion, satisfaction, tone
    )
    SELECT n, lpad(to_hex(rank), 32, '0')::uuid, rank, 'chat', 'sender', 'texto', sent_at,
           CASE WHEN analysed THEN sentiment END, CASE WHEN analysed THEN 'neutro' END,
           CASE WHEN analysed THEN satisfaction END, CASE WHEN analysed THEN 'cordial' END
    FROM message
)
INSERT INTO evosense.experiments_inference (
    id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms, sentiment, emotion, satisfaction,
    run_id, created_at
)
SELECT n, lpad(to_hex(rank), 32, '0')::uuid, n, 'bench-1', 'p-1', 'f', latency, sentiment, 'neutro', satisfaction, 'live',
       sent_at
FROM message;
