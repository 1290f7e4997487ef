-- The bucket of a histogram of latencies that a number of milliseconds falls into: below 32 one each; above, sixteen to
-- each doubling, so that the middle of a bucket lies within 1/32 of every latency in it. projections/latency.py has the
-- same in Python. Whole numbers alone: a logarithm could differ in its last digit between the two.
CREATE OR REPLACE FUNCTION evosense.latency_bucket(latency_ms integer) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN latency_ms < 32 THEN greatest(latency_ms, 0)
        -- As many places as the number has in binary, less five, are cut off.
        ELSE ((length(ltrim(latency_ms::bit(32)::text, '0')) - 5) << 4)
            + (latency_ms >> (length(ltrim(latency_ms::bit(32)::text, '0')) - 5))
    END::smallint
$$;
