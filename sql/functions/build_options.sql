-- Storage parameters of a relation and, with the prefix `toast.`, of its TOAST table, as name=value.
CREATE OR REPLACE FUNCTION evosense_ops.build_options(p_relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(o.option ORDER BY o.option)
    FROM pg_class c
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    CROSS JOIN LATERAL (
        SELECT unnest(c.reloptions) UNION ALL SELECT 'toast.' || unnest(t.reloptions)
    ) AS o(option)
    WHERE c.oid = p_relation
$$;
