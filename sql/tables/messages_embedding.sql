-- The vectors that semantic_search() reads, beside messages_message: an index on the message row itself would be
-- written again with every analysis of the message. docs/adr/0012 has the figures.
CREATE TABLE evosense.messages_embedding (
    message_id bigint NOT NULL,
    tenant_id uuid NOT NULL,
    model varchar(64) NOT NULL,
    embedding halfvec(768) NOT NULL,
    PRIMARY KEY (tenant_id, message_id)
) PARTITION BY HASH (tenant_id);

CREATE TABLE evosense.messages_embedding_p00 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE evosense.messages_embedding_p01 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE evosense.messages_embedding_p02 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE evosense.messages_embedding_p03 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE evosense.messages_embedding_p04 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE evosense.messages_embedding_p05 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE evosense.messages_embedding_p06 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE evosense.messages_embedding_p07 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE evosense.messages_embedding_p08 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE evosense.messages_embedding_p09 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE evosense.messages_embedding_p10 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE evosense.messages_embedding_p11 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE evosense.messages_embedding_p12 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE evosense.messages_embedding_p13 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE evosense.messages_embedding_p14 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE evosense.messages_embedding_p15 PARTITION OF evosense.messages_embedding
    FOR VALUES WITH (MODULUS 16, REMAINDER 15);
