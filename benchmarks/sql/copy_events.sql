COPY public.bare_events (originator_id, originator_version, topic, state, tenant_id) FROM STDIN (FORMAT binary)
