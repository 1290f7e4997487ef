-- Storage parameters as they stand between the brackets of WITH (...) and SET (...); '' for none.
CREATE OR REPLACE FUNCTION evosense_ops.build_options_text(p_options text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        string_agg(
            format('%s = %L', split_part(o.option, '=', 1), substr(o.option, strpos(o.option, '=') + 1)), ', '
        ),
        ''
    )
    FROM unnest(p_options) AS o(option)
$$;
