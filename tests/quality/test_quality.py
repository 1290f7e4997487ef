"""`make eval`: its data are what they say, its formulas right, and a small run goes from the models to the page."""

import json
import math
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from adapters.analysis import OfflineAnalyser
from adapters.analysis.anchors import anchor_sentences
from adapters.embeddings import OfflineEmbedder, concepts
from adapters.model_server import AnalyserServer, EmbedderServer
from adapters.model_settings import ModelConfig
from adapters.settings import Settings
from api.model_catalogue import Catalogue
from benchmarks.quality import metrics, models, report
from benchmarks.quality.__main__ import output, some_of
from benchmarks.quality.data import DISTRACTORS, POLARITIES, STYLES, distractors, messages, pairs
from benchmarks.quality.metrics import Share
from benchmarks.quality.models import ANALYSERS, EMBEDDERS
from benchmarks.quality.retrieval import MODES, retrieve
from benchmarks.quality.sentiment import by_lexicon, judge
from benchmarks.quality.served import Concurrent
from benchmarks.quality.speed import Speed, speed
from domain.masking import mask
from domain.ports import EMOTIONS
from tests.support.model_faults import answers_with
from tests.support.openai_server import openai_server

GOOD, BAD = {"alegria", "gratidão", "confiança"}, {"ansiedade", "tristeza", "frustração", "raiva"}


# ------------------------------------------------------------------------------------------------ the data


def test_messages_are_labelled_in_the_vocabulary_of_the_ports() -> None:
    assert len(messages()) >= 320
    assert len({message.text for message in messages()}) == len(messages())
    for message in messages():
        side = "positive" if message.emotion in GOOD else "negative" if message.emotion in BAD else "neutral"
        assert message.emotion in EMOTIONS
        assert message.polarity == side
        assert set(message.style) <= set(STYLES)
        assert (
            message.satisfaction in {"positive": range(60, 101), "neutral": range(45, 56), "negative": range(41)}[side]
        )
        assert mask(message.text) == message.text.strip() == message.text


def test_messages_are_of_many_sectors_and_styles() -> None:
    sectors = Counter(message.sector for message in messages())
    styles = Counter(style for message in messages() for style in message.style)
    assert len(sectors) >= 10
    assert min(sectors.values()) >= 25
    assert set(styles) == set(STYLES)
    assert min(styles.values()) >= 12


def test_the_halves_are_alike() -> None:
    halves = {half: [each for each in messages() if each.half == half] for half in ("tuning", "held-out")}
    tuning, held_out = halves["tuning"], halves["held-out"]
    assert abs(len(tuning) - len(held_out)) <= 8
    for label in (*POLARITIES, *EMOTIONS):
        numbers = [sum(label in (each.polarity, each.emotion) for each in half) for half in (tuning, held_out)]
        assert abs(numbers[0] - numbers[1]) <= 4, label
    assert Counter(pair.half for pair in pairs()) == {"tuning": 60, "held-out": 60}


def test_pairs_and_distractors_are_all_different() -> None:
    asked, answers = {pair.query for pair in pairs()}, {pair.answer for pair in pairs()}
    assert len(asked) == len(answers) == len(pairs()) >= 110
    assert len(set(distractors())) == DISTRACTORS == 1000
    assert not (asked | answers) & set(distractors())
    assert not asked & answers
    assert not any("{" in text for text in distractors())


def test_pairs_share_few_words() -> None:
    silent = _silent()
    overlaps = []
    for pair in pairs():
        query, answer = ({word[:5] for word in _words(text)} - silent for text in (pair.query, pair.answer))
        overlaps.append(len(query & answer) / max(1, len(query)))
    assert sum(overlaps) / len(overlaps) < 0.2


def test_no_model_was_made_of_what_is_held_out() -> None:
    held_out = {each.text for each in messages() if each.half == "held-out"}
    found = {text for pair in pairs() if pair.half == "held-out" for text in (pair.query, pair.answer)}
    anchors = set(anchor_sentences())
    assert not (held_out | found) & anchors
    assert {each.text for each in messages() if each.half == "tuning"} <= anchors


def test_no_concept_has_a_word_from_the_held_out_pairs_alone() -> None:
    """A word of theirs may be in the concepts where it also stands in what tuning was free to look at."""
    held_out = _grams(text for pair in pairs() if pair.half == "held-out" for text in (pair.query, pair.answer))
    free = [text for pair in pairs() if pair.half == "tuning" for text in (pair.query, pair.answer)]
    free += [*anchor_sentences(), *_demo()]
    known = _grams(free)
    entries = [entry for concept in tomllib.loads(concepts.concepts_file().decode())["concepts"] for entry in concept]
    for entry in entries:
        whole = entry.endswith(".")
        beginning = entry.removesuffix(".")
        matching = {gram for gram in held_out if (gram == beginning if whole else gram.startswith(beginning))}
        if matching:
            assert any(gram == beginning if whole else gram.startswith(beginning) for gram in known), entry


def _demo() -> list[str]:
    folder = resources.files("api.demo_data")
    return [line for entry in folder.iterdir() if entry.is_file() for line in entry.read_text("utf-8").splitlines()]


def _silent() -> set[str]:
    return {word[:5] for word in tomllib.loads(concepts.concepts_file().decode())["silent"]}


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.findall("[a-z0-9]+", folded)


def _grams(texts: Iterable[str]) -> set[str]:
    grams: set[str] = set()
    for text in texts:
        words = _words(text)
        grams |= {*words, *(f"{one} {two}" for one, two in pairwise(words))}
    return grams


# ------------------------------------------------------------------------------------------------ the formulas


def test_wilson_s_interval() -> None:
    # E. B. Wilson's formula for 8 of 10, as textbooks have it.
    low, high = Share(8, 10).interval
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert Share(0, 0).interval == (0.0, 1.0)
    assert Share(0, 20).interval[0] == 0.0
    assert Share(20, 20).interval[1] == pytest.approx(1.0)


def test_f1_counts_every_label_the_same() -> None:
    true = ["a", "a", "a", "b"]
    said = ["a", "a", "b", "b"]
    assert metrics.f1(said, true, "a") == pytest.approx(0.8)  # precision 1, recall 2/3
    assert metrics.f1(said, true, "b") == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert metrics.f1(said, true, "c") == 0.0
    assert metrics.macro_f1(said, true, ["a", "b"]) == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics.agreement(said, true) == Share(3, 4)
    assert metrics.confusion(said, true) == {("a", "a"): 2, ("a", "b"): 1, ("b", "b"): 1}


def test_errors_and_correlations() -> None:
    assert metrics.mean_absolute_error([10.0, 20.0], [13.0, 15.0]) == 4.0
    assert metrics.correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert metrics.correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert metrics.correlation([1.0, 1.0], [1.0, 2.0]) == 0.0


def test_calibration() -> None:
    bins = metrics.reliability([0.95, 0.85, 0.9, 0.15, 1.0, 0.0], [True, True, False, False, True, False])
    assert [(each.low, each.right) for each in bins] == [
        (0.0, Share(0, 1)),
        (0.1, Share(0, 1)),
        (0.8, Share(1, 2)),  # 0.9 is the upper end of its bin
        (0.9, Share(2, 2)),
    ]
    expected = (1 * 0.0 + 1 * 0.15 + 2 * abs(0.5 - 0.875) + 2 * abs(1 - 0.975)) / 6
    assert metrics.calibration_error(bins) == pytest.approx(expected)
    assert metrics.calibration_error([]) == 0.0


def test_places() -> None:
    places = [1, 5, 6, None]
    assert metrics.recall_at(places, 1) == Share(1, 4)
    assert metrics.recall_at(places, 5) == Share(2, 4)
    assert metrics.mean_reciprocal_rank(places) == pytest.approx((1 + 1 / 5 + 1 / 6) / 4)


# ------------------------------------------------------------------------------------------------ a small run


async def test_from_the_models_to_the_page(settings: Settings) -> None:
    analyser, embedder = ANALYSERS["offline"].make(), EMBEDDERS["offline"].make()
    some = messages()[:60]
    halves = await judge(analyser, some)
    chosen = pairs()[:6]
    found = await retrieve(settings, embedder, chosen, distractors()[:40])
    measured = report.Measured(
        analyser=analyser,
        embedder=embedder,
        halves=halves,
        lexicon={half: by_lexicon([each.message for each in halves[half].judged]) for half in halves},
        found=found,
        candidates=46,
        speed=await speed(analyser, embedder, ["Meu pedido não chegou", "Adorei"]),
        per_second=300.0,
    )
    assert [each.pair for each in found] == list(chosen)
    assert all(set(each.places) == set(MODES) for each in found)
    # Among so few even this model finds most, and by words, of which few are shared, next to nothing.
    assert sum(each.places["hybrid"] is not None for each in found) >= 4
    summary = json.loads(json.dumps(measured.summary()))
    assert list(summary) == ["polarity_accuracy", "emotion_macro_f1", "recall_at_5", "messages_per_second"]
    held_out = halves["held-out"]
    assert summary["polarity_accuracy"] == round(held_out.polarity().value, 4)
    assert all(math.isfinite(value) for value in summary.values())
    page = report.written(measured)
    assert "$" not in page
    assert f"| polarity, accuracy | 0.80 | **{held_out.polarity().value:.3f}** |" in page
    assert str(Path.home()) not in page


async def test_the_tuning_half_is_no_fair_test() -> None:
    """Its messages are anchors: figures for it have to be told apart from held-out ones."""
    halves = await judge(OfflineAnalyser(), messages())
    assert halves["tuning"].polarity().value > halves["held-out"].polarity().value


async def test_held_out_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = await judge(OfflineAnalyser(), messages())
    held_out = halves["held-out"]
    lexicon = by_lexicon([each.message for each in held_out.judged])
    assert held_out.polarity().value >= 0.75
    assert held_out.emotion_f1() >= 0.55
    assert held_out.polarity().value - lexicon.value >= 0.2


async def test_speed_is_measured_on_texts_that_no_cache_knows() -> None:
    asked: list[str] = []

    class Listening(OfflineEmbedder):
        async def embed(self, texts: object) -> list[bytes]:
            asked.extend(texts)  # type: ignore[call-overload]
            return []

    found = await speed(OfflineAnalyser(), Listening(), ["Oi", "Olá"])
    assert len(asked) == len(set(asked)) == 1 + 3 * 2
    assert isinstance(found, Speed)
    assert min(found.processor, found.clock) > 0


# ------------------------------------------------------------------------------------------- a model behind a server


async def test_a_served_model_is_measured_and_refused_answers_are_wrong(settings: Settings) -> None:
    with openai_server() as server:
        config = ModelConfig(
            (AnalyserServer(name="model", url=server.url, model="small", concurrency=4, call_price=0.001),),
            (EmbedderServer(name="embedding", url=server.url, model="vectors"),),
            ("model",),
        )
        catalogue = Catalogue(config)
        analyser, embedder = (
            models.analysers(catalogue)["model"].make(),
            models.embedders(catalogue)["embedding"].make(),
        )
        try:
            server.always(answers_with("nonsense"))
            refused = await judge(analyser, messages()[:4])
            server.always(None)
            halves = await judge(analyser, messages()[:40])
            (vector,) = await embedder.embed(["Oi"])
        finally:
            await catalogue.close()
    assert len(vector) == 4 * 768
    assert all(each.polarity == "refused" and not each.right for half in refused.values() for each in half.judged)
    assert sum(len(half.judged) for half in halves.values()) == 40
    assert all(each.answered for half in halves.values() for each in half.judged)
    assert isinstance(analyser, Concurrent)
    assert len(analyser.refused) == 4
    assert analyser.usage.calls == 4 * 2 + 40
    assert 1 < server.high_water <= 4


def test_the_offline_page_is_not_overwritten_by_others() -> None:
    assert output("offline", "offline") == Path("docs/quality.md")
    assert output("model", "offline") == Path("docs/quality-model.md")
    assert output("model", "embedding") == Path("docs/quality-model-embedding.md")
    assert [each.text for each in some_of(messages(), 10**6)] == [each.text for each in messages()]
    assert len({each.sector for each in some_of(messages(), 24)}) >= 10
