"""Inference: one answer of one model to one message under one version of the prompt, with what it cost."""

from typing import Final, Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.answers import check_scores
from domain.errors import Invalid
from domain.event import Event, event_type
from domain.limits import fitting

#: The run under which the analyses are recorded that the dashboards show.
LIVE_RUN: Final = "live"
#: Limits of the documented columns; the latency's is that of `integer`.
_LIMITS: Final = {"model_name": 64, "prompt_version": 64, "template_hash": 64, "run_id": 64, "emotion": 40}
_MAX_LATENCY_MS: Final = 2**31 - 1


@event_type("experiments.InferenceRecorded")
class InferenceRecorded(Event, frozen=True, kw_only=True):
    """A model answered. `latency_ms`: how long it took, in milliseconds; `is_shadow`: nobody is shown the answer."""

    message_id: UUID
    model_name: str
    prompt_version: str
    template_hash: str
    latency_ms: int
    sentiment: float
    emotion: str
    satisfaction: int
    is_shadow: bool
    run_id: str


class RecordInference(Command, frozen=True, kw_only=True):
    """Record a model's answer."""

    tenant_id: UUID
    message_id: UUID
    model_name: str
    prompt_version: str
    template_hash: str
    latency_ms: int
    sentiment: float
    emotion: str
    satisfaction: int
    is_shadow: bool = False
    run_id: str = LIVE_RUN


class Inference(Aggregate, frozen=True, kw_only=True):
    """State of an inference: it happened, or it did not."""

    tenant_id: UUID | None = None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        return replace(super().evolve(event), tenant_id=event.tenant_id)

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`."""
        if not isinstance(command, RecordInference):
            raise Invalid(f"an inference does not understand {type(command).__name__}")
        if self.exists:
            return ()
        for field, most in _LIMITS.items():
            fitting(field, getattr(command, field), most, least=1)
        if not 0 <= command.latency_ms <= _MAX_LATENCY_MS:
            raise Invalid(f"latency_ms lies between 0 and {_MAX_LATENCY_MS}, not at {command.latency_ms}")
        check_scores(command.sentiment, command.satisfaction)
        return (
            self._event(
                InferenceRecorded,
                command,
                command.tenant_id,
                message_id=command.message_id,
                model_name=command.model_name,
                prompt_version=command.prompt_version,
                template_hash=command.template_hash,
                latency_ms=command.latency_ms,
                sentiment=command.sentiment,
                emotion=command.emotion,
                satisfaction=command.satisfaction,
                is_shadow=command.is_shadow,
                run_id=command.run_id,
            ),
        )


def inference_id(message_id: UUID, run_id: str, prompt_version: str, model_name: str, text_version: int = 1) -> UUID:
    """The stream id of an inference: (message, run, prompt, model), and for an edited message which of its texts."""
    text = () if text_version == 1 else (text_version,)
    return derived_id("inference", message_id, run_id, prompt_version, model_name, *text)


def inference(identifier: UUID) -> Inference:
    """The inference of that id before anything has happened."""
    return Inference(id=identifier)
