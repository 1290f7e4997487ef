"""Read models: pure functions of the log. The engine reads it in batches; each projector folds a batch into its tables.

No clock, no chance, no network, no sequence in here (DESIGN rule 1): dropping the tables and running again gives the
same rows.
"""
