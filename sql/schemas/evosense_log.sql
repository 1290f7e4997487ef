-- The truth: events and the keys that open them. Cannot be computed again.
CREATE SCHEMA IF NOT EXISTS evosense_log AUTHORIZATION evosense_owner;
