"""How good the models are: labelled messages, paraphrases to be found, metrics, and speed. See docs/quality.md."""
