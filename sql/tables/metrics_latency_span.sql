-- How long a model took for a tenant within six hours: a histogram for each UTC hour, in arrays of equal length ordered
-- by hour and bucket, of which the view metrics_latency_hour makes rows; see metrics_span. No foreign key either:
-- experiments_inference_forget() takes away what was deleted.
CREATE TABLE evosense.metrics_latency_span (
    tenant_id uuid NOT NULL,
    since timestamptz NOT NULL, -- a multiple of six hours, in UTC
    model_name varchar(64) COLLATE "C" NOT NULL,
    is_shadow boolean NOT NULL,
    hours smallint[] NOT NULL, -- since then
    buckets smallint[] NOT NULL, -- evosense.latency_bucket() says which one a latency falls into
    inferences integer[] NOT NULL,
    latency_ms_sums bigint[] NOT NULL,
    PRIMARY KEY (tenant_id, since, model_name, is_shadow)
);
