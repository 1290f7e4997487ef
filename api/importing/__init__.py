"""Bulk import of message histories: `open_source` and `import_source` are its door; docs/importing.md is its page."""

from api.importing.pool import HelperLost
from api.importing.prepare import Refused, Tally
from api.importing.run import Progress, Report, import_source
from api.importing.source import Source, SourceError, open_source

__all__ = [
    "HelperLost",
    "Progress",
    "Refused",
    "Report",
    "Source",
    "SourceError",
    "Tally",
    "import_source",
    "open_source",
]
