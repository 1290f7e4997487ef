-- The model whose vectors answer for a tenant: the one that it adopted or, while it moves for the first time, the one
-- that it moves away from (docs/adr/0029). Where it never moved, the one that most of its vectors are of; NULL where it
-- has none.
CREATE OR REPLACE FUNCTION evosense.embedding_model(p_tenant_id uuid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan -- planning anew would be most of a small tenant's time
AS $$
DECLARE
    chosen text;
    other text;
BEGIN
    SELECT c.model INTO chosen
    FROM evosense.messages_embeddingmodel c
    WHERE c.tenant_id = p_tenant_id
    ORDER BY c.position DESC
    LIMIT 1;
    IF chosen IS NOT NULL THEN
        RETURN chosen;
    END IF;

    -- The first and the last of the key: nearly always the same one.
    SELECT min(e.model), max(e.model) INTO chosen, other
    FROM evosense.messages_embedding e
    WHERE e.tenant_id = p_tenant_id;

    IF chosen <> other THEN
        SELECT e.model INTO chosen
        FROM evosense.messages_embedding e
        WHERE e.tenant_id = p_tenant_id
        GROUP BY e.model
        ORDER BY count(*) DESC, e.model
        LIMIT 1;
    END IF;
    RETURN chosen;
END
$$;
