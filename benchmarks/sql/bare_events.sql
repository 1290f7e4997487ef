-- A table with the log's columns and nothing else: no key, no index, no trigger, no sequence.
DROP TABLE IF EXISTS public.bare_events;
CREATE TABLE public.bare_events (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state bytea NOT NULL,
    tenant_id uuid NOT NULL
);
ALTER TABLE public.bare_events ALTER COLUMN state SET STORAGE EXTERNAL;
