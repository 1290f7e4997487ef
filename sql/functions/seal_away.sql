-- The one change that the log allows (docs/adr/0032): what a deleted message said can't be read from then on. Puts
-- p_states in the place of the states of these versions of a stream; returns how many were changed. What was sealed away
-- already stays as it is.
--
-- SECURITY DEFINER, as the writer may not UPDATE the log. It believes nobody:
--   * the event is of one of five types, and its stream says that the message was deleted, or that this was announced;
--   * the open part stays as it is, byte for byte, and so do position, version, type, tenant and moment;
--   * the sealed part is as long as it is when every personal field is empty: 12 bytes of nonce, 16 of tag and between
--     them a msgpack map of the fields' names with '' behind each. Nothing else fits in there.
-- Whether it opens, and so stands there with the tenant's key, shows when it is read.
CREATE OR REPLACE FUNCTION evosense_log.seal_away(p_stream uuid, p_versions bigint[], p_states bytea[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
    behind integer; -- where the open part ends
    empty integer; -- the length of a sealed part with nothing in it
    changed integer := 0;
BEGIN
    IF cardinality(p_versions) IS DISTINCT FROM cardinality(p_states) THEN
        RAISE EXCEPTION 'each version needs its state' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR one IN
        SELECT n.version, n.state AS given, e.state AS stored, e.topic
        FROM unnest(p_versions, p_states) AS n(version, state)
        LEFT JOIN evosense_log.stored_events e ON e.originator_id = p_stream AND e.originator_version = n.version
        ORDER BY n.version
    LOOP
        empty := 28 + CASE one.topic
            WHEN 'messages.MessageReceived:1' THEN 20 -- external_id, text
            WHEN 'messages.MessageEdited:1' THEN 7 -- text
            WHEN 'messages.MessageAnalyzed:1' THEN 10 -- summary
            WHEN 'messages.MessageEmbedded:1' THEN 10 -- vector
            WHEN 'amendments.EditAnnounced:1' THEN 20 -- external_id, text
        END;
        IF empty IS NULL THEN
            RAISE EXCEPTION 'event % of stream % is none that may be sealed away', one.version, p_stream
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF NOT EXISTS (
            SELECT FROM evosense_log.stored_events d
            WHERE d.originator_id = p_stream AND d.topic = CASE one.topic
                WHEN 'amendments.EditAnnounced:1' THEN 'amendments.DeletionAnnounced:1'
                ELSE 'messages.MessageDeleted:1'
            END
        ) THEN
            RAISE EXCEPTION 'nothing in stream % says that the message was deleted', p_stream
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        -- msgpack: an array of two, then a byte string whose length takes 1, 2 or 4 bytes.
        behind := CASE WHEN get_byte(one.stored, 0) = 146 THEN CASE get_byte(one.stored, 1)
            WHEN 196 THEN 3 + get_byte(one.stored, 2)
            WHEN 197 THEN 4 + get_byte(one.stored, 2) * 256 + get_byte(one.stored, 3)
        END END;
        IF one.given IS NULL
            OR behind IS NULL
            OR octet_length(one.given) <> behind + 2 + empty
            OR substring(one.given FOR behind + 2)
                <> substring(one.stored FOR behind) || '\xc4'::bytea || set_byte('\x00'::bytea, 0, empty)
        THEN
            RAISE EXCEPTION 'event % of stream % would not be the same without its personal part', one.version, p_stream
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        CONTINUE WHEN octet_length(one.stored) = octet_length(one.given);
        UPDATE evosense_log.stored_events
        SET state = one.given
        WHERE originator_id = p_stream AND originator_version = one.version;
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END
$$;
