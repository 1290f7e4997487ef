CREATE INDEX idx_inference_tenant ON evosense.experiments_inference (tenant_id);
CREATE INDEX idx_inference_message ON evosense.experiments_inference (message_id);
CREATE INDEX idx_inference_run_id ON evosense.experiments_inference (run_id);
CREATE INDEX idx_inference_created_at ON evosense.experiments_inference (created_at);
CREATE INDEX idx_inference_shadow ON evosense.experiments_inference (is_shadow);
CREATE INDEX idx_inference_prompt ON evosense.experiments_inference (prompt_version);
