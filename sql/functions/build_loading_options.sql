-- The storage parameters of a live relation as WITH (...), but without vacuuming, which would be in the way of loading.
CREATE OR REPLACE FUNCTION evosense_ops.build_loading_options(p_live oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        ' WITH (%s)',
        evosense_ops.build_options_text(
            array_agg(o.option) FILTER (WHERE o.option !~ '^autovacuum_enabled=') || 'autovacuum_enabled=off'::text
        )
    )
    FROM unnest(evosense_ops.build_options(p_live)) AS o(option)
$$;
