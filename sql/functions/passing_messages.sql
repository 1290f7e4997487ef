-- The ids of the tenant's messages that pass the filters (matching_messages), at most `p_most` (NULL: all): of all
-- messages in no order, or of these ids in their order. Planned for each call: which index serves depends on the filters.
CREATE OR REPLACE FUNCTION evosense.passing_messages(
    p_tenant_id uuid,
    p_ids bigint[],
    p_most bigint,
    p_since timestamptz,
    p_until timestamptz,
    p_chat_id text,
    p_connection_id bigint,
    p_sentiment_min float,
    p_sentiment_max float,
    p_emotion text,
    p_author text
)
RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    -- Of evosense.messages_message, named here so that build_publish() leaves this out where a build is without it.
    IF p_ids IS NULL THEN
        RETURN (
            SELECT array_agg(few.id)
            FROM (
                SELECT m.id
                FROM matching_messages(p_tenant_id, NULL, p_since, p_until, p_chat_id, p_connection_id,
                                       p_sentiment_min, p_sentiment_max, p_emotion, p_author) m
                LIMIT p_most
            ) few
        );
    END IF;
    RETURN (
        SELECT array_agg(few.id)
        FROM (
            SELECT n.id
            FROM unnest(p_ids) WITH ORDINALITY AS n(id, place)
            JOIN matching_messages(p_tenant_id, p_ids, p_since, p_until, p_chat_id, p_connection_id,
                                   p_sentiment_min, p_sentiment_max, p_emotion, p_author) m USING (id)
            ORDER BY n.place
            LIMIT p_most
        ) few
    );
END
$$;
