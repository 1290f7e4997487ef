-- Once for each statement that deletes messages, whoever runs it and also through a cascade: takes their vectors, keys
-- and share of the totals away, in the schema of the table itself: a rebuild's rows are none of the live ones. Runs
-- with the rights of whoever deletes.
CREATE OR REPLACE FUNCTION evosense.messages_message_forget() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- A build of some tables may be without these.
    IF to_regclass(format('%I.messages_embedding', TG_TABLE_SCHEMA)) IS NOT NULL THEN
        EXECUTE format(
            $statement$
            DELETE FROM %1$I.messages_embedding e
            USING deleted d
            WHERE e.tenant_id = d.tenant_id AND e.message_id = d.id
            $statement$,
            TG_TABLE_SCHEMA
        );
    END IF;

    IF to_regclass(format('%I.messages_messagekey', TG_TABLE_SCHEMA)) IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %1$I.messages_messagekey k USING deleted d WHERE k.message_id = d.id', TG_TABLE_SCHEMA
        );
    END IF;

    IF to_regclass(format('%I.metrics_message', TG_TABLE_SCHEMA)) IS NOT NULL THEN
        EXECUTE format(
            $statement$
            WITH gone AS (
                DELETE FROM %1$I.metrics_message c
                USING deleted d
                WHERE c.message_id = d.id
                RETURNING c.tenant_id, c.author, c.sentiment, c.satisfaction, c.emotion, c.tone, c.connection_id,
                          to_timestamp(3600.0 * c.hour) AS hour
            ), totals AS (
                SELECT g.tenant_id, g.author, count(*) AS messages, count(g.sentiment) AS analysed,
                       coalesce(sum(g.sentiment::numeric), 0) AS sentiment_sum,
                       coalesce(sum(g.satisfaction), 0) AS satisfaction_sum,
                       count(*) FILTER (WHERE g.sentiment > 0.1) AS positive
                FROM gone g
                GROUP BY g.tenant_id, g.author
            ), emotions AS (
                SELECT g.tenant_id, g.author, g.emotion, count(*) AS messages
                FROM gone g
                WHERE g.emotion IS NOT NULL
                GROUP BY g.tenant_id, g.author, g.emotion
            ), fewer_by_emotion AS (
                UPDATE %1$I.metrics_emotion r
                SET messages = r.messages - e.messages
                FROM emotions e
                WHERE r.tenant_id = e.tenant_id AND r.author = e.author AND r.emotion = e.emotion
            ), hours AS (
                SELECT g.tenant_id, g.hour, g.connection_id, g.author, coalesce(g.emotion, '') AS emotion,
                       CASE WHEN g.emotion IS NULL THEN '' ELSE g.tone END AS tone, count(*) AS messages,
                       coalesce(sum(g.sentiment::numeric), 0) AS sentiment_sum,
                       coalesce(sum(g.satisfaction), 0) AS satisfaction_sum,
                       count(*) FILTER (WHERE g.sentiment > 0.1) AS positive
                FROM gone g
                GROUP BY 1, 2, 3, 4, 5, 6
            ), fewer_by_hour AS (
                UPDATE %1$I.metrics_hour r
                SET messages = r.messages - h.messages,
                    sentiment_sum = r.sentiment_sum - h.sentiment_sum,
                    satisfaction_sum = r.satisfaction_sum - h.satisfaction_sum,
                    positive = r.positive - h.positive
                FROM hours h
                WHERE r.tenant_id = h.tenant_id AND r.hour = h.hour AND r.connection_id = h.connection_id
                  AND r.author = h.author AND r.emotion = h.emotion AND r.tone = h.tone
            )
            UPDATE %1$I.metrics_rollup r
            SET messages = r.messages - t.messages,
                analysed = r.analysed - t.analysed,
                sentiment_sum = r.sentiment_sum - t.sentiment_sum,
                satisfaction_sum = r.satisfaction_sum - t.satisfaction_sum,
                positive = r.positive - t.positive
            FROM totals t
            WHERE r.tenant_id = t.tenant_id AND r.author = t.author
            $statement$,
            TG_TABLE_SCHEMA
        );
        -- A statement of its own: it sees what the one before has left, whatever a projector added meanwhile.
        EXECUTE format(
            $statement$
            DELETE FROM %1$I.metrics_hour r
            USING (SELECT DISTINCT tenant_id, date_trunc('hour', created_at, 'UTC') AS hour FROM deleted) d
            WHERE r.tenant_id = d.tenant_id AND r.hour = d.hour AND r.messages <= 0
            $statement$,
            TG_TABLE_SCHEMA
        );
    END IF;

    RETURN NULL;
END
$$;
