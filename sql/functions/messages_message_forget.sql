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
                RETURNING c.tenant_id, c.author, c.sentiment, c.satisfaction, c.emotion, c.tone, c.connection_id, c.hour
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
            ), cells AS (
                SELECT g.tenant_id, g.hour / 6 AS span, mod(g.hour, 6)::smallint AS hour, g.connection_id, g.author::text,
                       coalesce(g.emotion, '')::text AS emotion,
                       CASE WHEN g.emotion IS NULL THEN '' ELSE coalesce(g.tone, '') END AS tone,
                       count(*)::int AS messages,
                       coalesce(sum((g.sentiment * 1000000)::bigint), 0)::bigint AS sentiment_sum,
                       coalesce(sum(g.satisfaction), 0)::int AS satisfaction_sum,
                       count(*) FILTER (WHERE g.sentiment > 0.1)::int AS positive
                FROM gone g
                WHERE g.hour IS NOT NULL
                GROUP BY 1, 2, 3, 4, 5, 6, 7
            ), spans AS (
                SELECT c.tenant_id, to_timestamp(21600.0 * c.span) AS since, array_agg(c.hour) AS hours,
                       array_agg(c.connection_id) AS connection_ids, array_agg(c.author) AS authors,
                       array_agg(c.emotion) AS emotions, array_agg(c.tone) AS tones,
                       array_agg(-c.messages) AS messages, array_agg(-c.sentiment_sum) AS sentiment_sums,
                       array_agg(-c.satisfaction_sum) AS satisfaction_sums, array_agg(-c.positive) AS positives
                FROM cells c
                GROUP BY c.tenant_id, c.span
            ), fewer_by_hour AS (
                UPDATE %1$I.metrics_span r
                SET (
                    hours, connection_ids, authors, emotions, tones, messages, sentiment_sums, satisfaction_sums,
                    positives
                ) = (
                    -- All of them are empty where nothing is left.
                    SELECT coalesce(array_agg(m.hour), '{}'), coalesce(array_agg(m.connection_id), '{}'),
                           coalesce(array_agg(m.author), '{}'), coalesce(array_agg(m.emotion), '{}'),
                           coalesce(array_agg(m.tone), '{}'), coalesce(array_agg(m.messages), '{}'),
                           coalesce(array_agg(m.sentiment_sum), '{}'), coalesce(array_agg(m.satisfaction_sum), '{}'),
                           coalesce(array_agg(m.positive), '{}')
                    FROM (
                        SELECT hour, connection_id, author, emotion, tone, sum(messages)::int AS messages,
                               sum(sentiment_sum)::bigint AS sentiment_sum,
                               sum(satisfaction_sum)::int AS satisfaction_sum, sum(positive)::int AS positive
                        FROM unnest(
                            r.hours || s.hours, r.connection_ids || s.connection_ids, r.authors || s.authors,
                            r.emotions || s.emotions, r.tones || s.tones, r.messages || s.messages,
                            r.sentiment_sums || s.sentiment_sums, r.satisfaction_sums || s.satisfaction_sums,
                            r.positives || s.positives
                        ) AS c(
                            hour, connection_id, author, emotion, tone, messages, sentiment_sum, satisfaction_sum,
                            positive
                        )
                        GROUP BY hour, connection_id, author, emotion, tone
                        HAVING sum(messages) > 0
                        ORDER BY hour, connection_id, author, emotion, tone
                    ) m
                )
                FROM spans s
                WHERE r.tenant_id = s.tenant_id AND r.since = s.since
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
            DELETE FROM %1$I.metrics_span r
            USING (
                SELECT DISTINCT tenant_id, to_timestamp(21600.0 * floor(extract(epoch FROM created_at) / 21600)) AS since
                FROM deleted
            ) d
            WHERE r.tenant_id = d.tenant_id AND r.since = d.since AND r.messages = '{}'
            $statement$,
            TG_TABLE_SCHEMA
        );
    END IF;

    RETURN NULL;
END
$$;
