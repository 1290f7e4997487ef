-- Which of so many shards a tenant belongs to: 0 to p_shards - 1, at most 256 of them. From the last bytes of the id
-- itself, which are random in every version of UUID in use: PostgreSQL's own hashes may change with a major version.
-- NULL for NULL. A body without SET and STRICT, so that queries take it in.
CREATE OR REPLACE FUNCTION evosense_ops.shard_of(p_tenant_id uuid, p_shards integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (get_byte(uuid_send(p_tenant_id), 14) * 256 + get_byte(uuid_send(p_tenant_id), 15)) % p_shards;
