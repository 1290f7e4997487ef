-- The hash under which the messages of a chat or sender stand by now, for the session's tenant: that of the person where
-- the one that is given was a LID's, such as in a bookmark of before the link (docs/people.md); otherwise itself.
CREATE OR REPLACE FUNCTION evosense.person_of(p_hash text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT coalesce((
        SELECT p.person
        FROM evosense.messages_person p
        WHERE p.tenant_id = nullif(current_setting('evosense.tenant_id', true), '')::uuid AND p.alias = p_hash
        ORDER BY p.position
        LIMIT 1
    ), p_hash);
$$;
