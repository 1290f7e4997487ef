CREATE INDEX idx_messagekey_key ON evosense.messages_messagekey (key);
