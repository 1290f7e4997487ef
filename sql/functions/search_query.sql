-- What somebody looks for, as a tsquery over search_words(). The syntax is that of websearch_to_tsquery(): all words,
-- "a phrase", -without, this OR that (also OU). Whatever is typed is a query: nothing raises. A word that is written
-- with a hyphen or a full stop is a phrase, as its parts are words in the messages.
-- NULL where nothing is left to look for: no word, nothing but stop words, or only words that shall not be there.
CREATE OR REPLACE FUNCTION evosense.search_query(p_query text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning -- no notice where a word is a stop word
AS $$
DECLARE
    -- Stop words of the stemmer that search_form() makes unknown to it: the messages have them, so that phrases can be
    -- found, and a search for all words does without. "nao" is none of them here: it says something.
    passed_over CONSTANT text[] := '{so,ja,tambem,ate,voce,voces,nos,esta,estao,ha,hao,sao,sera,serao,tera,terao}';
    piece text[];
    word text;
    one tsquery;
    all_of tsquery := '';
    any_of tsquery := '';
BEGIN
    FOR piece IN
        SELECT m
        FROM regexp_matches(left(p_query, 2000), '(-?)(?:"([^"]*)"?|([^\s"]+))', 'g') WITH ORDINALITY AS t(m, n)
        ORDER BY n LIMIT 100
    LOOP
        -- Longer words are in no index, and phraseto_tsquery() refuses them.
        word := evosense.search_form(left(coalesce(piece[2], piece[3]), 500));
        IF piece[3] IN ('OR', 'or', 'Or', 'OU') THEN
            any_of := any_of || all_of;
            all_of := '';
            CONTINUE;
        END IF;
        CONTINUE WHEN piece[2] IS NULL AND btrim(word) = ANY (passed_over);
        one := phraseto_tsquery('portuguese', word);
        CONTINUE WHEN numnode(one) = 0;
        all_of := all_of && CASE piece[1] WHEN '-' THEN !! one ELSE one END;
    END LOOP;
    any_of := any_of || all_of;
    -- 'T': an index can't help, since every message without these words would be a hit.
    RETURN CASE WHEN numnode(any_of) > 0 AND querytree(any_of) <> 'T' THEN any_of END;
END
$$;
