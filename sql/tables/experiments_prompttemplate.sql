CREATE TABLE evosense.experiments_prompttemplate (
    id BIGSERIAL PRIMARY KEY,
    version VARCHAR(64) UNIQUE NOT NULL,
    body TEXT NOT NULL,
    description TEXT,
    is_active BOOLEAN DEFAULT FALSE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    created_by VARCHAR(100)
);
