"""Importing this module enters every event type in the register: whoever reads the log needs them all."""

from domain import (
    amendments,
    authn,
    connections,
    embedding_models,
    experiments,
    messages,
    model_choices,
    people,
    prompts,
    receipts,
    tenancy,
)

__all__ = [
    "amendments",
    "authn",
    "connections",
    "embedding_models",
    "experiments",
    "messages",
    "model_choices",
    "people",
    "prompts",
    "receipts",
    "tenancy",
]
