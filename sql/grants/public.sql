-- Functions can be executed by everybody unless that is taken away. Which migrations a database has is no secret:
-- every role has to refuse a schema that it doesn't know.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evosense, evosense_log, evosense_ops FROM PUBLIC;
GRANT USAGE ON SCHEMA evosense_ops TO PUBLIC;
GRANT SELECT ON evosense_ops.schema_migrations TO PUBLIC;
