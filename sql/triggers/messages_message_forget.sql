CREATE OR REPLACE TRIGGER messages_message_forget
AFTER DELETE ON evosense.messages_message
REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION evosense.messages_message_forget();
