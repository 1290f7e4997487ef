CREATE INDEX idx_experiment_tenant ON evosense.experiments_experimentrun (tenant_id);
CREATE INDEX idx_experiment_run_id ON evosense.experiments_experimentrun (run_id);
CREATE INDEX idx_experiment_status ON evosense.experiments_experimentrun (status);
CREATE INDEX idx_experiment_created ON evosense.experiments_experimentrun (created_at);
