-- Which messages have these keys: whose they are, and the ids of their rows, which are positions in the log. For the
-- worker, that applies edits and deletions: SECURITY DEFINER, as the writer sees no table of the read models. It answers
-- with nothing that is personal, and is the writer's to call and nobody else's.
CREATE OR REPLACE FUNCTION evosense.messages_of_keys(p_keys uuid[])
RETURNS TABLE (tenant_id uuid, key uuid, message_id bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.tenant_id, k.key, k.message_id
    FROM evosense.messages_messagekey k
    WHERE k.key = ANY(p_keys)
    ORDER BY k.message_id
$$;
