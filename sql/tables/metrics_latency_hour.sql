-- How long a tenant's models took: a histogram for each UTC hour, from which medians and percentiles are read.
-- evosense.latency_bucket() says which bucket a latency falls into. A row that falls to nothing goes. No foreign key, as
-- with metrics_hour: experiments_inference_forget() takes the rows away with their inferences.
CREATE TABLE evosense.metrics_latency_hour (
    tenant_id uuid NOT NULL,
    hour timestamptz NOT NULL, -- its beginning
    model_name varchar(64) COLLATE "C" NOT NULL,
    is_shadow boolean NOT NULL,
    bucket smallint NOT NULL,
    inferences bigint NOT NULL,
    latency_ms_sum bigint NOT NULL,
    PRIMARY KEY (tenant_id, hour, model_name, is_shadow, bucket)
);
