"""Rebuilding gives the same rows, ids included, whatever the size of the batches (DESIGN rule 1)."""
