-- VALIDATE CONSTRAINT reads both ends of a foreign key as the owner, on whom row-level security is forced: without a
-- policy it sees no rows, and calls every key broken or every key whole. A swap of read models leaves such keys behind
-- for build_validate(). Nobody logs in as the owner.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT DISTINCT e.relation
        FROM pg_constraint k
        CROSS JOIN LATERAL (VALUES (k.conrelid), (k.confrelid)) AS e(relation)
        JOIN pg_class c ON c.oid = e.relation
        WHERE k.contype = 'f' AND c.relnamespace = 'evosense'::regnamespace AND NOT c.relispartition
        ORDER BY e.relation
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS owner_checks ON %s', one.relation::regclass);
        EXECUTE format(
            'CREATE POLICY owner_checks ON %s FOR SELECT TO evosense_owner USING (true)', one.relation::regclass
        );
    END LOOP;
END
$$;
