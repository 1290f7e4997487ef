"""What the processes count, for Prometheus, and how they log."""

import logging
import sys
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

#: A registry of our own: the default one adds collectors that a test or a second app in the process would add twice.
REGISTRY: Final = CollectorRegistry()
RECEIVED: Final = Counter(
    "evosense_webhook_messages", "Messages that arrived by webhook", ["outcome"], registry=REGISTRY
)
IGNORED: Final = Counter(
    "evosense_webhook_ignored", "What arrived and is no message", ["kind", "reason"], registry=REGISTRY
)
REFUSED: Final = Counter("evosense_webhook_refused", "Webhook calls that were refused", ["status"], registry=REGISTRY)

#: More kinds than this are counted as "other": the sender chooses the names, and each one is kept for good.
_MAX_KINDS: Final = 1_000
_kinds: set[tuple[str, str]] = set()


def count_ignored(kind: str, reason: str) -> None:
    """Count something that is no message. `kind` and `reason` are safe labels, never content."""
    if reason == "unknown":
        kind = "other"  # the sender's own word: a thousand of them would crowd the known ones out
    if (kind, reason) not in _kinds and len(_kinds) >= _MAX_KINDS:
        kind = "other"
    _kinds.add((kind, reason))
    IGNORED.labels(kind, reason).inc()


def configure_logging(level: str, style: str) -> None:
    """Send all logs to standard error, as one JSON object a line or as text for people."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    # Our own loggers go the way of everybody else's, so that level and form are the same for all.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            # A traceback can hold anything, a message's text as well: name the kind of error and where it was raised.
            processors=[_without_values, structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    servers = ("faststream", "nats", "psycopg", "uvicorn.access", "socketio", "engineio")
    for noisy in ("httpx", "httpcore", "openai", *servers):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _without_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    elif info is True:
        info = sys.exc_info()
    if isinstance(info, tuple) and info[0] is not None:
        trace = info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
        event["error"] = f"{info[0].__name__} at {where}"
    return event
