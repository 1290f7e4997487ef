-- Owns every object of the three schemas; nobody logs in as it. `migrate` takes it on with SET ROLE.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'evosense_owner') THEN
        CREATE ROLE evosense_owner NOLOGIN NOINHERIT;
    END IF;
    -- A managed cloud's administrator has CREATEROLE and is no superuser: it may not SET ROLE to what it is no member of.
    IF NOT pg_has_role(current_user, 'evosense_owner', 'MEMBER') THEN
        EXECUTE format('GRANT evosense_owner TO %I', current_user);
    END IF;
EXCEPTION
    -- Roles belong to the cluster: a migration of a neighbouring database may have been a moment faster.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- A rebuild makes its tables in a schema of their own, which the owner's functions create.
DO $$
BEGIN
    IF NOT has_database_privilege('evosense_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO evosense_owner', current_database());
    END IF;
END
$$;
