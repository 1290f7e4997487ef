-- Vector indexes that can't be used, or whose partition waits for a VACUUM: deleted vectors lower the recall until it has
-- run. `evosense vector status` shows how much of each tenant is indexed.
SELECT i.indexrelid::regclass AS index_name, i.indisvalid AS usable, s.n_live_tup, s.n_dead_tup, s.last_autovacuum
FROM pg_partition_tree('evosense.messages_embedding') part
JOIN pg_index i ON i.indrelid = part.relid
JOIN pg_class c ON c.oid = i.indexrelid AND c.relname ~ '^idx_message_embedding_s[0-9]+$'
JOIN pg_stat_user_tables s ON s.relid = i.indrelid
WHERE NOT i.indisvalid OR s.n_dead_tup > 0.05 * s.n_live_tup
ORDER BY s.n_dead_tup DESC;
