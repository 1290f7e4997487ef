-- The read models: the documented tables, the side tables, the views and the functions. Can be computed again.
CREATE SCHEMA IF NOT EXISTS evosense AUTHORIZATION evosense_owner;
