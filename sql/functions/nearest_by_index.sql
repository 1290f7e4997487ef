-- At least the nearest `p_reach` vectors of a tenant's model, in no order, for a tenant that has vector indexes: of each
-- stretch by its index (vector_segments_of), and one by one what lies in none, the newest above all. No more than
-- `p_reach` of each. An index that gives fewer has run dry, or its stretch has no more: that is compared one by one, or
-- what the other stretches give would hide it.
--
-- The settings are part of the design (DESIGN section 6): a generic plan would lose the indexes, which are partial and
-- are chosen by the values; an index scan has to go on where its first candidates are not enough. The planner holds
-- the vector index for dearer than it is, and at 34,000 vectors rather sorted them all: sorting is made the last resort,
-- which leaves the stretches without an index, where there is nothing else, as they are.
CREATE OR REPLACE FUNCTION evosense.nearest_by_index(
    p_tenant_id uuid, p_model text, p_query halfvec(768), p_reach bigint
)
RETURNS TABLE (message_id bigint, distance float)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_sort = off
SET hnsw.ef_search = 100
SET hnsw.iterative_scan = relaxed_order
SET hnsw.max_scan_tuples = 50000
AS $$
#variable_conflict use_column
DECLARE
    -- Up to where everything was looked at.
    covered bigint := 0;
    stretch record;
    ids bigint[];
    distances float[];
BEGIN
    FOR stretch IN
        SELECT s.after_id, s.upto_id FROM vector_segments_of(p_tenant_id, p_model) s
        UNION ALL
        SELECT NULL, NULL -- behind the last one
        ORDER BY after_id NULLS LAST
    LOOP
        IF stretch.after_id IS NULL OR covered < stretch.after_id THEN
            RETURN QUERY
            SELECT e.message_id, e.embedding <=> p_query
            FROM evosense.messages_embedding e
            WHERE e.tenant_id = p_tenant_id AND e.model = p_model AND e.message_id > covered
                AND (stretch.after_id IS NULL OR e.message_id <= stretch.after_id)
            ORDER BY (e.embedding <=> p_query) + 0 -- no index can give this order
            LIMIT p_reach;
        END IF;
        IF stretch.upto_id IS NOT NULL THEN
            SELECT array_agg(found.message_id), array_agg(found.distance) INTO ids, distances
            FROM (
                SELECT e.message_id, e.embedding <=> p_query AS distance
                FROM evosense.messages_embedding e
                WHERE e.tenant_id = p_tenant_id AND e.model = p_model
                    AND e.message_id > stretch.after_id AND e.message_id <= stretch.upto_id
                ORDER BY e.embedding <=> p_query
                LIMIT p_reach
            ) found;
            IF cardinality(ids) >= p_reach THEN
                RETURN QUERY SELECT * FROM unnest(ids, distances);
            ELSE
                RETURN QUERY
                SELECT e.message_id, e.embedding <=> p_query
                FROM evosense.messages_embedding e
                WHERE e.tenant_id = p_tenant_id AND e.model = p_model
                    AND e.message_id > stretch.after_id AND e.message_id <= stretch.upto_id
                ORDER BY (e.embedding <=> p_query) + 0
                LIMIT p_reach;
            END IF;
            covered := stretch.upto_id;
        END IF;
    END LOOP;
END
$$;
