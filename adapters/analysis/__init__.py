"""The offline analyser behind `domain.ports.Analyser`: anchor sentences and a lexicon, no language model."""

from adapters.analysis.offline import OfflineAnalyser

__all__ = ["OfflineAnalyser"]
