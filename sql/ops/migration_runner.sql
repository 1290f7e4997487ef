-- What adapters/migrations.py and adapters/login_role.py ask; not a part of any migration.

-- name: try_lock(key)$
-- Tried again and again instead of waited for: a session that waits inside a statement would stop another one's
-- CREATE INDEX CONCURRENTLY, which waits for older statements to end.
SELECT pg_try_advisory_lock(:key);

-- name: unlock(key)$
SELECT pg_advisory_unlock(:key);

-- name: is_bootstrapped()$
SELECT to_regclass('evosense_ops.schema_migrations') IS NOT NULL;

-- name: vector_version()^
-- The version that is installed or, failing that, that would be; no row: the server has none to offer.
SELECT coalesce(installed_version, default_version) AS version, installed_version IS NOT NULL AS installed
FROM pg_available_extensions
WHERE name = 'vector';

-- name: current_version()$
SELECT coalesce(max(version), 0) FROM evosense_ops.schema_migrations;

-- name: applied_migrations()
SELECT version, name, checksum, files FROM evosense_ops.schema_migrations ORDER BY version;

-- name: record_migration(version, name, checksum, files, program)!
INSERT INTO evosense_ops.schema_migrations (version, name, checksum, files, applied_by)
VALUES (:version, :name, :checksum, :files::jsonb, :program);

-- name: repeatable_checksums()
SELECT file, checksum FROM evosense_ops.repeatable_objects;

-- name: record_repeatable(file, checksum)!
INSERT INTO evosense_ops.repeatable_objects (file, checksum) VALUES (:file, :checksum)
ON CONFLICT (file) DO UPDATE SET checksum = excluded.checksum, applied_at = clock_timestamp();

-- name: take_search_path()$
-- Sets, for this session, what every connection to this database is to have, and returns it: documented SQL then runs
-- unchanged, wherever the extension was installed.
SELECT set_config(
    'search_path', concat_ws(', ', 'evosense', 'public', nullif(quote_ident(n.nspname), 'public')), false
)
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector';

-- name: database_has_search_path(search_path)$
SELECT EXISTS (
    SELECT
    FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase
    WHERE d.datname = current_database() AND s.setrole = 0
      AND 'search_path=' || :search_path = ANY (s.setconfig)
);

-- name: login_role(name)^
-- What a role may do by itself, and which of our roles it does not hold as it should: to be taken on by SET ROLE
-- (MEMBER) and not held all the time (USAGE).
SELECT
    r.rolcanlogin AS can_login,
    r.rolinherit AS inherits,
    r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication AS powerful,
    pg_has_role(r.oid, 'evosense_owner', 'MEMBER') AS is_owner,
    has_database_privilege(r.oid, current_database(), 'CONNECT') AS may_connect,
    ARRAY(
        SELECT ours.rolname::text
        FROM pg_roles ours
        WHERE ours.rolname IN ('evosense_app', 'evosense_projector', 'evosense_writer')
          AND (NOT pg_has_role(r.oid, ours.oid, 'MEMBER') OR pg_has_role(r.oid, ours.oid, 'USAGE'))
        ORDER BY ours.rolname
    ) AS to_grant
FROM pg_roles r
WHERE r.rolname = :name;
