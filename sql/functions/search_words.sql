-- The words of a message, stemmed, as idx_message_words has them. It must never change, as search_form() must not.
CREATE FUNCTION evosense.search_words(p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT pg_catalog.to_tsvector('pg_catalog.portuguese'::pg_catalog.regconfig, evosense.search_form(p_text))
$$;
