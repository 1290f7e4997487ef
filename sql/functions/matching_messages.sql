-- The tenant's messages that pass the filters of a search, of these ids or of all (NULL). A filter that is NULL lets
-- all pass; p_author is 'customer' or 'company'. Plain SQL, to be inlined where it is called.
CREATE OR REPLACE FUNCTION evosense.matching_messages(
    p_tenant_id uuid,
    p_ids bigint[],
    p_since timestamptz,
    p_until timestamptz,
    p_chat_id text,
    p_connection_id bigint,
    p_sentiment_min float,
    p_sentiment_max float,
    p_emotion text,
    p_author text
)
RETURNS TABLE (id bigint)
LANGUAGE sql STABLE
AS $$
    SELECT m.id
    FROM evosense.messages_message m
    WHERE m.tenant_id = p_tenant_id
        AND (p_ids IS NULL OR m.id = ANY (p_ids))
        AND (p_since IS NULL OR m.created_at >= p_since)
        AND (p_until IS NULL OR m.created_at < p_until)
        AND (p_chat_id IS NULL OR m.chat_id = p_chat_id)
        AND (p_connection_id IS NULL OR m.connection_id = p_connection_id)
        AND (p_sentiment_min IS NULL OR m.sentiment >= p_sentiment_min)
        AND (p_sentiment_max IS NULL OR m.sentiment <= p_sentiment_max)
        AND (p_emotion IS NULL OR m.emotion = p_emotion)
        AND (p_author IS NULL OR p_author = CASE WHEN EXISTS (
            SELECT FROM evosense.connections_companysender c
            WHERE c.connection_id = m.connection_id AND c.sender = m.sender
        ) THEN 'company' ELSE 'customer' END)
$$;
