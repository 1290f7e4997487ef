-- How the vector indexes are used: the one that leads to a tenant's vectors (idx_message_embedding, in sixteen parts) and
-- the HNSW index of each stretch of a big tenant's (idx_message_embedding_s…). The documented columns tablename and
-- indexname are called relname and indexrelname.
SELECT s.schemaname, s.relname, s.indexrelname, s.idx_scan, s.idx_tup_read, s.idx_tup_fetch,
       pg_size_pretty(pg_relation_size(s.indexrelid)) AS index_size
FROM pg_stat_user_indexes s
WHERE s.schemaname = 'evosense'
    AND (s.indexrelname ~ '^idx_message_embedding_s[0-9]+$'
        OR s.indexrelid IN (SELECT part.relid FROM pg_partition_tree('evosense.idx_message_embedding') part))
ORDER BY s.indexrelname;
