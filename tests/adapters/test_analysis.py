"""The offline analyser: what it promises, how it behaves, and how often it is right on sentences it never saw."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.analysis import OfflineAnalyser, anchors, offline
from adapters.analysis.summary import MAX_SUMMARY, summarise
from domain.ports import EMOTIONS, TONES, Analysis

#: polarity, emotion, text: every second customer message of the demo, labelled before the first measurement.
HELD_OUT = [
    row.split("\t")
    for row in (Path(__file__).parent / "data" / "sentiment_heldout.tsv").read_text("utf-8").splitlines()
]


def polarity(sentiment: float, *, bound: float = 0.1) -> str:
    """The documented view counts a message as positive above 0.1."""
    return "positive" if sentiment > bound else "negative" if sentiment < -bound else "neutral"


@pytest.fixture(scope="module")
def analyser() -> OfflineAnalyser:
    return OfflineAnalyser()


async def one(analyser: OfflineAnalyser, text: str) -> Analysis:
    (analysis,) = await analyser.analyse([text])
    return analysis


# ------------------------------------------------------------------------------------------------ how good it is


def test_the_held_out_set_is_large_and_unseen() -> None:
    texts = {text for _, _, text in HELD_OUT}
    assert len(texts) >= 80
    assert not texts & set(anchors.anchor_sentences())
    assert {label for label, _, _ in HELD_OUT} == {"positive", "neutral", "negative"}


async def test_accuracy_on_the_held_out_set(analyser: OfflineAnalyser) -> None:
    """Measured: polarity 90 of 113 and emotion 87 of 113; the lexicon alone has 53 of 113 polarities."""
    from LeIA import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer()
    analyses = await analyser.analyse([text for _, _, text in HELD_OUT])
    alone = [polarity(_compound(lexicon, text), bound=0.05) for _, _, text in HELD_OUT]  # VADER's own bound
    right = sum(polarity(each.sentiment) == row[0] for each, row in zip(analyses, HELD_OUT, strict=True))
    right_emotion = sum(each.emotion == row[1] for each, row in zip(analyses, HELD_OUT, strict=True))
    right_alone = sum(label == row[0] for label, row in zip(alone, HELD_OUT, strict=True))
    assert right / len(HELD_OUT) >= 0.76
    assert right_emotion / len(HELD_OUT) >= 0.74
    assert (right - right_alone) / len(HELD_OUT) >= 0.25


def _compound(lexicon: object, text: str) -> float:
    scores: dict[str, float] = lexicon.polarity_scores(text)  # type: ignore[attr-defined] # LeIA has no types
    return scores["compound"]


@pytest.mark.parametrize(
    ("text", "label", "emotion", "tone"),
    [
        ("bom dia", "neutral", "neutro", "cordial"),
        ("Quanto custa o frete?", "neutral", "neutro", "neutro"),
        ("Obrigada!", "positive", "gratidão", "cordial"),
        ("não gostei", "negative", "frustração", "neutro"),
        ("nunca mais compro", "negative", "frustração", "neutro"),
        ("PÉSSIMO ATENDIMENTO!!!", "negative", "raiva", "agressivo"),
        ("Que decepção 😢", "negative", "tristeza", "neutro"),
        ("😡😡", "negative", "raiva", "neutro"),
        ("😍", "positive", "alegria", "neutro"),
        ("Prezados, solicito a segunda via da nota.", "neutral", "neutro", "formal"),
        ("blz, vc manda hj?", "neutral", "neutro", "informal"),
        ("Parabéns pela incompetência", "negative", "raiva", "agressivo"),
        ("Estou aflita, é urgente, preciso ainda hoje!", "negative", "ansiedade", "urgente"),
        ("", "neutral", "neutro", "neutro"),
    ],
)
async def test_what_a_person_would_expect(
    analyser: OfflineAnalyser, text: str, label: str, emotion: str, tone: str
) -> None:
    analysis = await one(analyser, text)
    assert (polarity(analysis.sentiment), analysis.emotion, analysis.tone) == (label, emotion, tone)


async def test_a_raised_voice_and_emojis_intensify(analyser: OfflineAnalyser) -> None:
    calm, loud, shouted = await analyser.analyse(
        ["péssimo atendimento", "péssimo atendimento!!!", "PÉSSIMO ATENDIMENTO!!!"]
    )
    assert shouted.sentiment < loud.sentiment < calm.sentiment < -0.1
    plain, glad, angry = await analyser.analyse(["o pedido chegou", "o pedido chegou 😍", "o pedido chegou 😡"])
    assert angry.sentiment < -0.1 <= plain.sentiment <= 0.1 < glad.sentiment


async def test_negation_turns_around(analyser: OfflineAnalyser) -> None:
    liked, disliked = await analyser.analyse(["gostei do produto", "não gostei do produto"])
    assert disliked.sentiment < 0 < liked.sentiment
    assert disliked.satisfaction < 50 < liked.satisfaction


# ------------------------------------------------------------------------------------------------ what it promises


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "1",
        "...",
        "!!!",
        "?",
        "😀" * 500,
        "\ud83d",
        "\x00",
        "[CPF]",
        "kkkkkkkk",
        "a" * 65_536,
        "não " * 20_000,
    ],
)
async def test_any_text_gets_a_valid_analysis(analyser: OfflineAnalyser, text: str) -> None:
    analysis = await one(analyser, text)
    assert -1 <= analysis.sentiment <= 1
    assert analysis.sentiment == round(analysis.sentiment, 4)
    assert 0 <= analysis.satisfaction <= 100
    assert isinstance(analysis.satisfaction, int)
    assert analysis.emotion in EMOTIONS
    assert analysis.tone in TONES
    assert len(analysis.summary) <= MAX_SUMMARY


async def test_the_same_text_gets_the_same_analysis_in_any_company(analyser: OfflineAnalyser) -> None:
    texts = [text for _, _, text in HELD_OUT]
    together = await analyser.analyse(texts)
    backwards = await OfflineAnalyser().analyse(texts[::-1])
    alone = [await one(analyser, text) for text in texts[:20]]
    assert together == backwards[::-1]
    assert together[:20] == alone


def test_the_template_hash_covers_the_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = OfflineAnalyser().template_hash
    assert len(before) == 64
    assert before == OfflineAnalyser().template_hash
    monkeypatch.setattr(offline, "LEXICON_WEIGHT", 0.9)
    other_constant = OfflineAnalyser().template_hash
    monkeypatch.undo()
    monkeypatch.setattr(anchors, "anchors_file", lambda: b"other anchors")
    assert len({before, other_constant, OfflineAnalyser().template_hash}) == 3


def test_names_fit_their_columns() -> None:
    analyser = OfflineAnalyser()
    assert (analyser.model_name, analyser.prompt_version) == ("evosense-offline-2", "offline-2")


def test_a_locale_without_utf_8_is_explained() -> None:
    """LeIA reads its files in the locale's encoding, and cannot in ASCII."""
    code = (
        "from adapters.analysis.lexicon import Lexicon, LexiconError\n"
        "try: Lexicon()\n"
        "except LexiconError as error: print(error)\n"
    )
    settings = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True, timeout=60
    )
    assert "PYTHONUTF8=1" in answer.stdout


# ------------------------------------------------------------------------------------------------ summaries


def test_a_short_message_is_its_own_summary() -> None:
    assert summarise("  Bom dia!\n\nTudo   bem? ") == "Bom dia! Tudo bem?"


def test_whole_sentences_are_kept() -> None:
    text = "A caixa chegou aberta e molhada. " * 10
    assert summarise(text) == ("A caixa chegou aberta e molhada. " * 6).strip()


def test_a_long_sentence_is_cut_behind_a_word() -> None:
    summary = summarise("o entregador não veio e " * 30)
    assert len(summary) <= MAX_SUMMARY
    assert summary.endswith("…")
    assert summary[:-1].split()[-1] in {"o", "entregador", "não", "veio", "e"}


def test_a_word_without_end_is_cut_all_the_same() -> None:
    assert summarise("k" * 5_000) == "k" * (MAX_SUMMARY - 1) + "…"
