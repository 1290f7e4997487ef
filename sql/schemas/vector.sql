-- In `public`, not in `evosense`: a rebuild may drop or swap the schema of the read models, never the types in it.
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
