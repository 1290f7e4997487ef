-- Reads the log, writes the read models of every tenant and its checkpoints.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'evosense_projector') THEN
        CREATE ROLE evosense_projector NOLOGIN NOINHERIT;
    END IF;
EXCEPTION
    -- Roles belong to the cluster: a migration of a neighbouring database may have been a moment faster.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
