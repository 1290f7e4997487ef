-- A text as full-text search reads it: small letters without accents, punctuation and signs as spaces, so that a word's
-- end is a space. What nobody types consistently is gone ("nao" for "não", "chegou.Obrigado", "entrega/retirada"). The
-- Portuguese stemmer, though, knows its endings with their accents alone: they are put back (-ação, -ução, -arão), and
-- the plural -ões becomes -ão, the same from "reclamações" and from "reclamacoes".
--
-- Character for character as long as the text (composed, NFC) and a space: places in the one are places in the other.
--
-- An index is made of this: it must never change. Another form is another function, with another index.
CREATE FUNCTION evosense.search_form(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
-- No search_path of its own, which would keep it from being inlined: every name says where it is.
AS $$
    SELECT pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
        pg_catalog.replace(
            pg_catalog.regexp_replace(
                pg_catalog.lower(pg_catalog.translate(
                    -- What is slow for every letter, and seldom needed: composing, capitals, accents of others.
                    CASE WHEN p_text OPERATOR(pg_catalog.~) '[À-ÝäåèëìïñòöùûüýÿŸ\u0300-\u036f]' THEN
                        pg_catalog.translate(
                            normalize(p_text, NFC),
                            'ÁÀÂÃÉÊÍÓÔÕÚÇäåèëìïñòöùûüýÿÄÅÈËÌÏÑÒÖÙÛÜÝŸ',
                            'aaaaeeioooucaaeeiinoouuuyyaaeeiinoouuuyy'
                        )
                    ELSE p_text END OPERATOR(pg_catalog.||) ' ',
                    'áàâãéêíóôõúç',
                    'aaaaeeiooouc'
                ) COLLATE "C"),
                '[\u0001-/:-@[-`{-¿\u2000-\u2bff\ufe00-\ufe0f\U0001f000-\U0001faff]', ' ', 'g'
            ),
            'oes ', 'ao  '
        ), 'acao ', 'ação '), 'ucao ', 'ução '), 'arao ', 'arão '), 'erao ', 'erão '), 'irao ', 'irão ')
$$;
