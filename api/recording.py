"""How what a model said of a message becomes commands: the analysis and its inference together, a vector by itself."""

from datetime import datetime
from uuid import UUID

from api.commands import Step
from domain.answers import checked
from domain.errors import DomainError
from domain.experiments import LIVE_RUN, RecordInference, inference, inference_id
from domain.messages import AnalyzeMessage, EmbedMessage, Message
from domain.ports import Analysis, Answer


def answered(
    state: Message, tenant_id: UUID, answer: Answer, now: datetime, *, only_first: bool = False
) -> tuple[AnalyzeMessage, Step]:
    """The command to the message, and the step that follows it: both go into one append.

    `only_first`: see `AnalyzeMessage`.
    """
    analysis = _as_stored(answer.analysis)
    command = AnalyzeMessage(
        at=now,
        model_name=answer.model_name,
        prompt_version=answer.prompt_version,
        analysis=analysis,
        text_version=state.text_version,
        only_first=only_first,
    )
    inferred = RecordInference(
        at=now,
        tenant_id=tenant_id,
        message_id=state.id,
        model_name=answer.model_name,
        prompt_version=answer.prompt_version,
        template_hash=answer.template_hash,
        latency_ms=answer.latency_ms,
        sentiment=analysis.sentiment,
        emotion=analysis.emotion,
        satisfaction=analysis.satisfaction,
        run_id=LIVE_RUN,
    )
    identifier = inference_id(state.id, LIVE_RUN, answer.prompt_version, answer.model_name, state.text_version)
    # None of a text that the message no longer has when it comes to be recorded.
    return command, Step(inference(identifier), (inferred,), follows=True)


def embedded(state: Message, model_name: str, vector: bytes, now: datetime) -> EmbedMessage:
    """The command that records a vector of the message's text."""
    return EmbedMessage(at=now, model_name=model_name, vector=vector, text_version=state.text_version)


def _as_stored(analysis: Analysis) -> Analysis:
    """The analysis as the message will keep it, so that its inference says the same; a wrong one is refused there."""
    try:
        return checked(analysis)
    except DomainError:
        return analysis
