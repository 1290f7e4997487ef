CREATE OR REPLACE TRIGGER experiments_inference_forget
AFTER DELETE ON evosense.experiments_inference
REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION evosense.experiments_inference_forget();
