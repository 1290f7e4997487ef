-- The connections of all tenants, or those of one name: for the doors of Evolution that serve the whole installation
-- (the global webhook, the listener), which the log has to be asked about next. SECURITY DEFINER, as the writer sees no
-- table of the read models; it answers with names alone, and is the writer's to call and nobody else's.
CREATE OR REPLACE FUNCTION evosense.known_connections(p_name text DEFAULT NULL)
RETURNS TABLE (tenant_id uuid, name text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.tenant_id, c.name::text
    FROM evosense.connections_evolutionconnection c
    WHERE p_name IS NULL OR c.name = p_name
    ORDER BY c.id
$$;
