-- The part of a message around what was found, at most 200 characters, as it was written; and where in it the words
-- are: first character (from 1) and number of characters, two numbers a word. Places and not markers: what a customer
-- wrote can't be taken for one, and nothing has to be escaped.
CREATE OR REPLACE FUNCTION evosense.search_snippet(
    p_text text, p_query tsquery, OUT snippet text, OUT highlights integer[]
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    longest CONSTANT integer := 200;
    before CONSTANT integer := 60;
    original text := normalize(p_text, NFC);
    form text := evosense.search_form(p_text);
    part text;
    place integer := 1;
    length_ integer;
    first_ integer;
    starts integer[] := '{}';
    lengths integer[] := '{}';
BEGIN
    -- search_form() has made spaces of these two signs.
    FOR part IN
        SELECT p FROM string_to_table(
            ts_headline('portuguese', form, p_query, E'HighlightAll=true, StartSel=\x02, StopSel=\x03'), E'\x02'
        ) WITH ORDINALITY AS t(p, n)
        ORDER BY n
    LOOP
        length_ := strpos(part, E'\x03') - 1;
        IF length_ > 0 THEN
            starts := starts || place;
            -- The s of -ões is a space in the form.
            lengths := lengths || length_ + (lower(substr(original, place + length_, 1)) = 's')::integer;
        END IF;
        place := place + length(replace(part, E'\x03', ''));
    END LOOP;
    IF place - 1 <> length(form) OR length(form) <> length(original) + 1 THEN
        starts := '{}'; -- the parser took something away: no places are better than wrong ones
    END IF;
    first_ := greatest(1, least(coalesce(starts[1], 1) - before, length(original) - longest + 1));
    snippet := substr(original, first_, longest);
    highlights := ARRAY(
        SELECT unnest(ARRAY[s - first_ + 1, least(l, first_ + longest - s)])
        FROM unnest(starts, lengths) WITH ORDINALITY AS w(s, l, n)
        WHERE s >= first_ AND s < first_ + longest
        ORDER BY n
    );
END
$$;
