"""Importing this module enters every event type in the register: whoever reads the log needs them all."""

from domain import authn, connections, experiments, messages, receipts, tenancy

__all__ = ["authn", "connections", "experiments", "messages", "receipts", "tenancy"]
