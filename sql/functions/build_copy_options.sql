-- Gives a relation the storage parameters of another, and no others.
CREATE OR REPLACE FUNCTION evosense_ops.build_copy_options(p_from regclass, p_to regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted text[] := coalesce(evosense_ops.build_options(p_from), '{}');
    surplus text := (
        SELECT string_agg(split_part(o.option, '=', 1), ', ')
        FROM unnest(evosense_ops.build_options(p_to)) AS o(option)
        WHERE o.option <> ALL (wanted)
    );
BEGIN
    IF surplus IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s RESET (%s)', p_to, surplus);
    END IF;
    IF cardinality(wanted) > 0 THEN
        EXECUTE format('ALTER TABLE %s SET (%s)', p_to, evosense_ops.build_options_text(wanted));
    END IF;
END
$$;
