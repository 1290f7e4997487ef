-- The documented design: the vector on the message, one ivfflat index of 100 lists made while the table is empty, and
-- the documented function, beside a table with one plain HNSW index.
CREATE SCHEMA documented;

CREATE TABLE documented.messages_message (
    id bigint PRIMARY KEY,
    tenant_id uuid NOT NULL,
    text text NOT NULL,
    sentiment float,
    satisfaction integer,
    created_at timestamptz NOT NULL,
    embedding vector(768)
);
CREATE INDEX idx_message_tenant ON documented.messages_message (tenant_id);
CREATE INDEX idx_message_embedding ON documented.messages_message
    USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);

CREATE TABLE documented.plain (
    id bigint PRIMARY KEY,
    tenant_id uuid NOT NULL,
    embedding vector(768) NOT NULL
);
CREATE INDEX plain_tenant ON documented.plain (tenant_id);

CREATE FUNCTION documented.semantic_search(
    p_tenant_id uuid,
    p_query_embedding vector(768),
    p_limit integer DEFAULT 20,
    p_similarity_threshold float DEFAULT 0.7
)
RETURNS TABLE (
    message_id bigint, text text, sentiment float, satisfaction integer, similarity_score float, created_at timestamptz
)
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
    SELECT
        m.id,
        m.text,
        m.sentiment,
        m.satisfaction,
        1 - (m.embedding <=> p_query_embedding) AS similarity_score,
        m.created_at
    FROM documented.messages_message m
    WHERE m.tenant_id = p_tenant_id
        AND m.embedding IS NOT NULL
        AND 1 - (m.embedding <=> p_query_embedding) >= p_similarity_threshold
    ORDER BY m.embedding <=> p_query_embedding
    LIMIT p_limit;
END;
$$;
