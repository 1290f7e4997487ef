"""What all model servers have in common: how they are configured, and how carefully they are asked."""

from adapters.model_server.config import AnalyserServer, EmbedderServer

__all__ = ["AnalyserServer", "EmbedderServer"]
