-- Parts of the vector index that can't be used or whose partition waits for a VACUUM: deleted vectors lower the recall
-- until it has run.
SELECT i.indexrelid::regclass AS index_name, i.indisvalid AS usable, s.n_live_tup, s.n_dead_tup, s.last_autovacuum
FROM pg_partition_tree('evosense.idx_message_embedding') part
JOIN pg_index i ON i.indexrelid = part.relid
JOIN pg_stat_user_tables s ON s.relid = i.indrelid
WHERE part.isleaf AND (NOT i.indisvalid OR s.n_dead_tup > 0.05 * s.n_live_tup)
ORDER BY s.n_dead_tup DESC;
