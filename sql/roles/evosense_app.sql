-- Reads the read models of one tenant (row-level security) and searches them; owns nothing, writes nothing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'evosense_app') THEN
        CREATE ROLE evosense_app NOLOGIN NOINHERIT;
    END IF;
EXCEPTION
    -- Roles belong to the cluster: a migration of a neighbouring database may have been a moment faster.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
