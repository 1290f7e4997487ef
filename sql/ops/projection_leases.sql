-- A checkpoint for each shard of the tenants, and who works on it until when. `epoch` grows with every new holder.
ALTER TABLE evosense_ops.projection_checkpoints
    ADD COLUMN shard integer NOT NULL DEFAULT 0,
    ADD COLUMN shards integer NOT NULL DEFAULT 1,
    ADD COLUMN holder text,
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN held_until timestamptz,
    ADD CONSTRAINT projection_checkpoints_shard_check
        CHECK (shards BETWEEN 1 AND 256 AND shard >= 0 AND shard < shards),
    DROP CONSTRAINT projection_checkpoints_pkey,
    ADD CONSTRAINT projection_checkpoints_pkey PRIMARY KEY (projection, shard);
