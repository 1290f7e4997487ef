CREATE INDEX idx_prompt_version ON evosense.experiments_prompttemplate (version);
CREATE INDEX idx_prompt_active ON evosense.experiments_prompttemplate (is_active);
