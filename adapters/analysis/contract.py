"""What a model's answer must be: its JSON schema, and what is done to check it, whatever a model returns.

Nothing that `parse` lets through is out of range or of the vocabularies; docs/prompts-and-answers.md has the rules.
"""

import math
from typing import Any, Final

from adapters.analysis.errors import BrokenContract
from adapters.analysis.json_object import the_object
from adapters.analysis.labels import EMOTION_LABELS, TONE_LABELS, Labels
from adapters.analysis.summary_rules import checked_summary
from domain.answers import MAX_SUMMARY, checked
from domain.errors import Invalid
from domain.ports import EMOTIONS, TONES, Analysis, Question

__all__ = ["SCHEMA", "BrokenContract", "parse"]

#: For structured output: in the subset that OpenAI's strict mode takes (all is required, nothing is added, and no
#: limits on a text's length). The summary comes first, so that a model has said what a message is about before it puts
#: a number on it.
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "summary": {
            "type": "string",
            "description": f"one line, at most {MAX_SUMMARY} characters, in the language of the message",
        },
        "emotion": {"type": "string", "enum": list(EMOTIONS)},
        "tone": {"type": "string", "enum": list(TONES)},
        "sentiment": {"type": "number", "minimum": -1, "maximum": 1},
        "satisfaction": {"type": "integer", "minimum": 0, "maximum": 100},
    },
    "required": ["summary", "emotion", "tone", "sentiment", "satisfaction"],
    "additionalProperties": False,
}
_KEYS: Final[tuple[str, ...]] = tuple(SCHEMA["required"])


def parse(text: str, question: Question, instructions: str = "") -> Analysis:
    """The analysis in a model's answer to a question. Raises `BrokenContract`, and nothing else.

    `instructions`: the prompt that it was asked under (`Rendered.system`), of which a summary may not repeat a part.
    """
    answer = the_object(text)
    missing = [key for key in _KEYS if key not in answer]
    if missing:
        raise BrokenContract(f"the answer has no {', '.join(missing)}; it has {', '.join(_KEYS)}")
    if len(answer) > len(_KEYS):
        raise BrokenContract(f"the answer has other keys than {', '.join(_KEYS)}; it has these five alone")
    analysis = Analysis(
        sentiment=_sentiment(answer["sentiment"]),
        emotion=_label("emotion", answer["emotion"], EMOTION_LABELS, EMOTIONS),
        satisfaction=_satisfaction(answer["satisfaction"]),
        tone=_label("tone", answer["tone"], TONE_LABELS, TONES),
        summary=checked_summary(answer["summary"], question, instructions),
    )
    try:
        return checked(analysis)
    except Invalid as error:
        raise BrokenContract(str(error)) from None


def _sentiment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise BrokenContract("sentiment is a number from -1 to 1, without quotes")
    return float(value)


def _satisfaction(value: object) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value.is_integer())
    if isinstance(value, bool) or not whole or not 0 <= value <= 100:  # type: ignore[operator]
        raise BrokenContract("satisfaction is a whole number from 0 to 100, without quotes")
    return int(value)  # type: ignore[call-overload,no-any-return]


def _label(field: str, value: object, labels: Labels, vocabulary: tuple[str, ...]) -> str:
    label = labels.find(value) if isinstance(value, str) else None
    if label is None:
        raise BrokenContract(f"{field} is one of {', '.join(vocabulary)}")
    return label
