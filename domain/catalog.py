"""Importing this module enters every event type in the register: whoever reads the log needs them all."""

from domain import authn, connections, embedding_models, experiments, messages, people, receipts, tenancy

__all__ = ["authn", "connections", "embedding_models", "experiments", "messages", "people", "receipts", "tenancy"]
