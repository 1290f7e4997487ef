-- The tenant's messages that mean most nearly what the query vector means, best first: of one model's vectors, and of
-- messages that pass the filters (matching_messages). p_except: a message that is no hit, the one that asks.
--
-- Two steps, because the vectors that are fast to search (messages_embedding: half precision, indexed) are not the
-- documented ones (messages_message.embedding), from which score and order come:
--   1. candidates, a few more than asked for, so that the order at the end of the list does not depend on rounding;
--   2. their rows, scored, cut at the threshold, ordered, cut at the limit.
-- The threshold stays out of step 1: inside, an iterative index scan reads on and on for rows that do not exist.
--
-- A tenant's vectors are searched in stretches: those that have an HNSW index of their own (vector_segments_of) by
-- that index, and what lies outside of them, the newest above all, one by one. So a vector is found as soon as it is
-- committed, and none is written into an index on its way in.
--
-- Exact wherever that is cheap: where there is no index yet, which a tenant gets with 8,000 vectors; where at most
-- `exact_up_to` messages pass the filters; and for more than `exact_from_limit` hits (an index scan of that depth
-- would stop early without a word). With filters the indexes are asked for more and more until enough pass, up to
-- `reach_up_to`; then everything is compared.
--
-- p_limit NULL: all hits, as LIMIT NULL; 0 or less: none. NULL for any of the first three or the threshold: no rows.
-- Generic plans on purpose: what is asked here needs none of its own, and planning it anew was most of a small tenant's
-- time. What does is asked in nearest_by_index and passing_messages, whose plans are made for each call.
-- Functions without a schema: in the copy that a replay makes they are the replay's own.
CREATE OR REPLACE FUNCTION evosense.nearest_messages(
    p_tenant_id uuid,
    p_query_embedding vector(768),
    p_model text,
    p_limit integer DEFAULT 20,
    p_similarity_threshold float DEFAULT 0.7,
    p_except bigint DEFAULT NULL,
    p_since timestamptz DEFAULT NULL,
    p_until timestamptz DEFAULT NULL,
    p_chat_id text DEFAULT NULL,
    p_connection_id bigint DEFAULT NULL,
    p_sentiment_min float DEFAULT NULL,
    p_sentiment_max float DEFAULT NULL,
    p_emotion text DEFAULT NULL,
    p_author text DEFAULT NULL
)
RETURNS TABLE (
    message_id bigint,
    text text,
    sentiment float,
    satisfaction integer,
    similarity_score float,
    created_at timestamptz
)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    exact_up_to CONSTANT integer := 5000;
    exact_from_limit CONSTANT integer := 200;
    reach_up_to CONSTANT bigint := 3200;
    -- bigint: a limit near the largest integer must not overflow.
    wanted bigint := p_limit::bigint + 20 + (p_except IS NOT NULL)::integer;
    query halfvec(768) := p_query_embedding::halfvec(768);
    filtered boolean := num_nonnulls(p_since, p_until, p_chat_id, p_connection_id, p_sentiment_min, p_sentiment_max,
                                     p_emotion, p_author) > 0;
    exact boolean := wanted IS NULL OR p_limit > exact_from_limit;
    reach bigint := wanted * CASE WHEN filtered THEN 5 ELSE 1 END;
    passing bigint[];
    nearest bigint[];
    candidates bigint[];
BEGIN
    IF p_tenant_id IS NULL OR p_query_embedding IS NULL OR p_model IS NULL OR p_similarity_threshold IS NULL
        OR p_limit <= 0
    THEN
        RETURN;
    END IF;

    exact := exact OR NOT EXISTS (
        SELECT FROM evosense_ops.vector_segments s WHERE s.tenant_id = p_tenant_id AND s.model = p_model
    );

    IF filtered THEN
        passing := passing_messages(p_tenant_id, NULL, CASE WHEN NOT exact THEN exact_up_to + 1 END, p_since, p_until,
                                    p_chat_id, p_connection_id, p_sentiment_min, p_sentiment_max, p_emotion, p_author);
        IF NOT exact THEN
            exact := coalesce(cardinality(passing), 0) <= exact_up_to;
            IF NOT exact THEN
                passing := NULL; -- those that pass were not all read: too many
            END IF;
        END IF;
    END IF;

    WHILE NOT exact LOOP
        SELECT array_agg(n.message_id ORDER BY n.distance) INTO nearest
        FROM nearest_by_index(p_tenant_id, p_model, query, reach) n;
        candidates := nearest[:wanted];
        IF filtered THEN
            candidates := passing_messages(p_tenant_id, nearest, wanted, p_since, p_until, p_chat_id, p_connection_id,
                                           p_sentiment_min, p_sentiment_max, p_emotion, p_author);
        END IF;
        EXIT WHEN cardinality(candidates) >= wanted;
        exact := coalesce(cardinality(nearest), 0) < reach OR reach >= reach_up_to OR NOT filtered;
        reach := least(reach * 4, reach_up_to);
    END LOOP;

    IF exact AND filtered AND passing IS NULL THEN
        passing := passing_messages(p_tenant_id, NULL, NULL, p_since, p_until, p_chat_id, p_connection_id,
                                    p_sentiment_min, p_sentiment_max, p_emotion, p_author);
    END IF;

    IF exact THEN
        SELECT array_agg(found.message_id) INTO candidates
        FROM (
            SELECT e.message_id
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id AND e.model = p_model
                AND (NOT filtered OR e.message_id = ANY (passing))
            ORDER BY (e.embedding <=> query) + 0 -- no index can give this order
            LIMIT wanted
        ) found;
    END IF;

    RETURN QUERY
    SELECT hit.id, hit.text, hit.sentiment, hit.satisfaction, hit.score, hit.created_at
    FROM (
        SELECT m.id, m.text, m.sentiment, m.satisfaction, m.created_at,
               -- The documented column holds the vector that came last, which may be another model's (docs/adr/0029).
               1 - (CASE WHEN m.embedding::halfvec(768) = e.embedding THEN m.embedding ELSE e.embedding::vector(768) END
                    <=> p_query_embedding) AS score
        FROM evosense.messages_message m
        JOIN evosense.messages_embedding e
            ON e.tenant_id = p_tenant_id AND e.model = p_model AND e.message_id = m.id
        WHERE m.id = ANY (candidates) AND m.tenant_id = p_tenant_id AND m.embedding IS NOT NULL
            AND m.id IS DISTINCT FROM p_except
        OFFSET 0 -- the distance is computed once a row
    ) hit
    -- A vector of length 0 means nothing: its score is NaN, which PostgreSQL holds greater than any threshold.
    WHERE hit.score >= p_similarity_threshold AND hit.score <> 'NaN'
    ORDER BY hit.score DESC, hit.id
    LIMIT p_limit;
END
$$;
