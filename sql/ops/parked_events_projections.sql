ALTER TABLE evosense_ops.parked_events
    ADD COLUMN projections text[]; -- those that could not take the event; NULL: all of the subscriber
