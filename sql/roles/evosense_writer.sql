-- Appends to the log. It holds no privilege to change or to delete an event.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'evosense_writer') THEN
        CREATE ROLE evosense_writer NOLOGIN NOINHERIT;
    END IF;
EXCEPTION
    -- Roles belong to the cluster: a migration of a neighbouring database may have been a moment faster.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
