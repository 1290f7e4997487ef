-- How the vector index is used. It is partitioned, and statistics stand with its sixteen parts; the documented columns
-- tablename and indexname are called relname and indexrelname.
SELECT s.schemaname, s.relname, s.indexrelname, s.idx_scan, s.idx_tup_read, s.idx_tup_fetch,
       pg_size_pretty(pg_relation_size(s.indexrelid)) AS index_size
FROM pg_partition_tree('evosense.idx_message_embedding') part
JOIN pg_stat_user_indexes s ON s.indexrelid = part.relid
ORDER BY s.indexrelname;
