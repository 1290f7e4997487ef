-- How far an import has come: what api/importing asks.

-- name: progress(connection_id, source)^
SELECT position, report FROM evosense_ops.import_progress WHERE connection_id = :connection_id AND source = :source;

-- name: keep_progress(connection_id, source, position, report)!
INSERT INTO evosense_ops.import_progress (connection_id, source, position, report)
VALUES (:connection_id, :source, :position::jsonb, :report::jsonb)
ON CONFLICT (connection_id, source) DO UPDATE
SET position = excluded.position, report = excluded.report, updated_at = now();
