"""What a model's answer must be: its JSON schema, and what is done to check it."""

from typing import Any, Final

from domain.answers import MAX_SUMMARY
from domain.ports import EMOTIONS, TONES

#: For structured output: in the subset that OpenAI's strict mode takes. The summary comes first, so that a model has
#: said what a message is about before it puts a number on it.
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
