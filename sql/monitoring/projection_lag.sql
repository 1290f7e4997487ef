-- How far each shard of each projection is behind the log, and which process holds it.
SELECT c.projection, c.shard, c.holder, c.held_until > clock_timestamp() AS held, c.position, head.position AS head,
       head.position - c.position AS lag, c.updated_at
FROM evosense_ops.projection_checkpoints c
CROSS JOIN (SELECT coalesce(max(notification_id), 0) AS position FROM evosense_log.stored_events) head
ORDER BY lag DESC, c.projection, c.shard;
