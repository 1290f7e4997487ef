INSERT INTO public.bare_events (originator_id, originator_version, topic, state, tenant_id)
VALUES (%b, %b, %b, %b, %b)
