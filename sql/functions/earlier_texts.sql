-- Texts that came before some messages in their conversations: of each, at most so many, with the latest first at place 1.
-- For the worker, that gives them to models along with the message: SECURITY DEFINER, as the writer sees no table of the
-- read models. All texts there are masked; what was deleted has none. A chat's messages may stand under its person's hash
-- by now (sql/tables/messages_person.sql).
CREATE OR REPLACE FUNCTION evosense.earlier_texts(
    p_tenant uuid, p_messages bigint[], p_chats text[], p_sent timestamptz[], p_most integer
)
RETURNS TABLE (message_id bigint, place bigint, text text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT asked.id, found.place, found.text
    FROM unnest(p_messages, p_chats, p_sent) AS asked(id, chat, sent_at)
    CROSS JOIN LATERAL (
        SELECT row_number() OVER (ORDER BY m.created_at DESC, m.id DESC) AS place, m.text
        FROM evosense.messages_message m
        WHERE m.tenant_id = p_tenant
            AND (m.chat_id = asked.chat OR m.chat_id = (
                -- Whom the chat stood for when the message came, as queries/messages.sql has it.
                SELECT p.person FROM evosense.messages_person p
                WHERE p.tenant_id = p_tenant AND p.alias = asked.chat
                ORDER BY p.position < asked.id DESC, abs(p.position - asked.id)
                LIMIT 1
            ))
            AND m.created_at <= asked.sent_at
            AND (m.created_at, m.id) < (asked.sent_at, asked.id)
            AND m.text <> ''
        ORDER BY m.created_at DESC, m.id DESC
        LIMIT p_most
    ) found
    ORDER BY asked.id, found.place
$$;
