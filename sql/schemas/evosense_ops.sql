-- Bookkeeping: migrations, checkpoints, parked events.
CREATE SCHEMA IF NOT EXISTS evosense_ops AUTHORIZATION evosense_owner;
