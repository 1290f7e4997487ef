WITH asked AS MATERIALIZED (SELECT evosense.search_query(%s) AS query, %s::uuid AS tenant),
newest AS (
    SELECT m.id
    FROM evosense.messages_message m
    WHERE m.tenant_id = (SELECT tenant FROM asked) AND evosense.search_words(m.text) @@ (SELECT query FROM asked)
    ORDER BY m.created_at DESC, m.id DESC
    LIMIT 1000
), best AS (
    SELECT m.*, ts_rank_cd(evosense.search_words(m.text), asked.query) AS score
    FROM newest
    JOIN evosense.messages_message m USING (id)
    CROSS JOIN asked
    ORDER BY score DESC, m.created_at DESC, m.id DESC
    LIMIT 20
)
SELECT b.id, s.snippet, s.highlights
FROM best b
CROSS JOIN asked
CROSS JOIN LATERAL evosense.search_snippet(b.text, asked.query) s
ORDER BY b.score DESC, b.created_at DESC, b.id DESC;
