"""What a model's answer must be, and that nothing else than that gets through."""

import json
import math
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.analysis import labels
from adapters.analysis.contract import SCHEMA, BrokenContract, parse
from adapters.analysis.json_object import MAX_ANSWER
from adapters.analysis.language import agrees, recognise
from adapters.analysis.summary import summarise
from domain.answers import checked
from domain.masking import mask
from domain.ports import EMOTIONS, TONES, Question

RIGHT: dict[str, Any] = {
    "summary": "Reclama do atraso.",
    "emotion": "frustração",
    "tone": "neutro",
    "sentiment": -0.5,
    "satisfaction": 25,
}


def question(text: str = "Meu pedido ainda não chegou", *earlier: str) -> Question:
    return Question(tenant_id=UUID(int=1), message_id=UUID(int=2), text=text, earlier=earlier)


def answer(**changes: object) -> str:
    return json.dumps(RIGHT | changes)


def broken(text: str, asked: Question | None = None, instructions: str = "") -> str:
    with pytest.raises(BrokenContract) as refused:
        parse(text, asked or question(), instructions)
    return str(refused.value)


# ------------------------------------------------------------------------------------------------ the schema


def test_the_schema_is_one_that_strict_structured_output_takes() -> None:
    """Every key required, none added, and only keywords that OpenAI's strict mode knows."""
    assert SCHEMA["required"] == list(SCHEMA["properties"])
    assert SCHEMA["additionalProperties"] is False
    known = {"type", "enum", "minimum", "maximum", "description"}
    assert all(set(entry) <= known for entry in SCHEMA["properties"].values())
    assert SCHEMA["properties"]["emotion"]["enum"] == list(EMOTIONS)
    assert SCHEMA["properties"]["tone"]["enum"] == list(TONES)


# ------------------------------------------------------------------------------------------------ the object


@pytest.mark.parametrize(
    "wrapped",
    [
        "{}",
        "```json\n{}\n```",
        "Here you are {{sure}}: {}\nAnything else?",
        '<think>First {{"summary": "x"}}, no.</think>\n{}',
        "\ufeff{}",
    ],
)
def test_what_stands_around_the_object_is_passed_over(wrapped: str) -> None:
    text = wrapped.replace("{}", answer()).replace("{{", "{").replace("}}", "}")
    assert parse(text, question()).summary == "Reclama do atraso."


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no complete JSON object"),
        ("null", "no complete JSON object"),
        ("[1, 2]", "no complete JSON object"),
        (answer()[:-1], "no complete JSON object"),
        (answer().replace('"', "'"), "no complete JSON object"),
        (answer() + answer(), "more than one JSON object"),
        (answer() + " {}", "more than one JSON object"),
        ("{" * 5000, "no complete JSON object"),
        ('{"a":' * 2500, "nests too deep"),
        ('{"a":' + "[" * 10_000, "nests too deep"),
        (answer() + " " * MAX_ANSWER, "more than 16384 characters"),
        (answer()[:-1] + ', "tone": "neutro"}', "twice"),
        (answer(sentiment=math.nan), "finite"),
        (answer(sentiment=-math.inf), "finite"),
        (answer().replace("25", "9" * 5000), "too long"),
        (answer(more=1), "other keys"),
        (json.dumps({key: RIGHT[key] for key in RIGHT if key != "tone"}), "no tone"),
        (json.dumps({"answer": RIGHT}), "has no summary"),
    ],
)
def test_no_object_two_or_another_one_is_refused(text: str, rule: str) -> None:
    assert rule in broken(text)


# ------------------------------------------------------------------------------------------------ the values


@pytest.mark.parametrize("value", [-1, 1, 0, -1.0, 0.123456, 1e-9, -0.0])
def test_sentiment_in_range(value: float) -> None:
    assert parse(answer(sentiment=value), question()).sentiment == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("value", [1.0000001, -2, 50, "0.5", True, None, [0], {}, 10**400, -(10**30)])
def test_sentiment_out_of_range(value: object) -> None:
    assert "sentiment is a number from -1 to 1" in broken(answer(sentiment=value))


@pytest.mark.parametrize("value", [0, 100, 80.0, 1e2, -0.0])
def test_satisfaction_in_range(value: float) -> None:
    satisfaction = parse(answer(satisfaction=value), question()).satisfaction
    assert type(satisfaction) is int
    assert satisfaction == value


@pytest.mark.parametrize("value", [-1, 101, 200, 80.5, "80", True, None, [], 10**400])
def test_satisfaction_out_of_range(value: object) -> None:
    assert "satisfaction is a whole number from 0 to 100" in broken(answer(satisfaction=value))


@pytest.mark.parametrize("endless", ["1e999", "-1e999"])
def test_a_number_that_is_infinite_without_saying_so(endless: str) -> None:
    assert "satisfaction" in broken(answer().replace("25", endless))
    assert "sentiment" in broken(answer().replace("-0.5", endless))


@pytest.mark.parametrize(
    ("emotion", "stored"),
    [
        ("frustração", "frustração"),
        ("FRUSTRACAO", "frustração"),
        (" Frustrado. ", "frustração"),
        ("anger", "raiva"),
        ("Joy", "alegria"),
        ("no_emotion", "neutro"),
        ("Gratidão 🙏", "gratidão"),
    ],
)
def test_another_word_for_an_emotion(emotion: str, stored: str) -> None:
    assert parse(answer(emotion=emotion), question()).emotion == stored


@pytest.mark.parametrize("tone", ["urgency", "URGENTE!", "Pressing"])
def test_another_word_for_a_tone(tone: str) -> None:
    assert parse(answer(tone=tone), question()).tone == "urgente"


@pytest.mark.parametrize("label", ["", "negative", "raiva e tristeza", "x" * 10_000, 1, None, ["raiva"], "<b>"])
def test_a_label_that_nobody_knows(label: object) -> None:
    reason = broken(answer(emotion=label))
    assert reason == f"emotion is one of {', '.join(EMOTIONS)}"
    assert broken(answer(tone=label)) == f"tone is one of {', '.join(TONES)}"


def test_every_label_stands_for_itself_and_the_table_contradicts_itself_nowhere() -> None:
    assert [labels.EMOTION_LABELS.find(label) for label in EMOTIONS] == list(EMOTIONS)
    assert [labels.TONE_LABELS.find(label) for label in TONES] == list(TONES)
    with pytest.raises(ValueError, match="two labels"):
        labels.Labels(("raiva", "tristeza"), {"raiva": ["Ódio"], "tristeza": ["odio"]})
    with pytest.raises(ValueError, match="may not be stored"):
        labels.Labels(("raiva",), {"ranço": ["nojo"]})


# ------------------------------------------------------------------------------------------------ the summary


def test_a_summary_is_one_clean_line() -> None:
    summary = "Pedido\n não\tchegou\u200b \u202eainda "
    assert parse(answer(summary=summary), question()).summary == "Pedido não chegou ainda"


@pytest.mark.parametrize(
    ("summary", "rule"),
    [
        (None, "is a text"),
        (["x"], "is a text"),
        ("", "empty"),
        (" \n\u200b", "empty"),
        ("\u200d\ufe0f", "empty"),
        ("a " * 101, "too long"),
        ("Pedido\0atrasado", "NUL"),
        ("Pedido \ud800", "Unicode"),
        ("The order has not arrived.", "language"),
        ("El pedido del cliente aún no ha llegado.", "language"),
        ("Заказ не пришёл", "language"),
        ("Veja em http://exemplo.test/x", "address"),
        ("Veja em loja.com.br/oferta", "address"),
        ("Escreveu a fulano@exemplo.test", "e-mail"),
        ("Pede <b>urgência</b>", "markup"),
        ("Pede {{ desconto }}", "markup"),
        ("x" * 41, "word of more than 40"),
    ],
)
def test_what_a_summary_may_not_be(summary: object, rule: str) -> None:
    assert rule in broken(answer(summary=summary))


def test_a_summary_is_as_long_as_the_column() -> None:
    assert len(parse(answer(summary="ab " * 66 + "cd"), question()).summary) == 200


def test_what_masking_adds_counts() -> None:
    summary = "Pede tel 3456-7890 " + "a " * 90 + "a"
    assert (len(summary), len(mask(summary))) == (200, 201)
    assert parse(answer(summary=summary[:-2]), question()).summary.startswith("Pede tel [TELEFONE] a a")
    assert "too long" in broken(answer(summary=summary))


@pytest.mark.parametrize("summary", ["Nova data:10/05 às 9h.", "Pede [instalação] <3", "Veio com � no nome."])
def test_what_only_looks_like_code(summary: str) -> None:
    assert parse(answer(summary=summary), question()).summary == summary


def test_links_of_the_conversation_may_be_named() -> None:
    asked = question("O site loja.com.br/Oferta não abre", "tenta https://outra.test")
    assert parse(answer(summary="Diz que LOJA.com.br/oferta não abre."), asked)
    assert parse(answer(summary="Não abre: https://outra.test."), asked)
    assert "address" in broken(answer(summary="Não abre: loja.com.br/outra"), asked)


def test_the_instructions_are_not_repeated_unless_the_message_did() -> None:
    instructions = "Diga o que o cliente quer em poucas palavras, e nada mais do que isso."
    leak = "O que o cliente quer em poucas palavras e nada mais"
    assert "instructions" in broken(answer(summary=leak), question(), instructions)
    assert parse(answer(summary=leak), question(f"li aqui: {instructions}"), instructions)
    assert parse(answer(summary="O que o cliente quer em poucas"), question(), instructions)


# ------------------------------------------------------------------------------------------------ the language


@pytest.mark.parametrize(
    ("message", "summary", "right"),
    [
        ("Meu pedido não chegou", "Pedido atrasado.", True),
        ("ok", "Confirma.", True),
        ("Thanks!", "Thanks the company for its service.", True),
        ("thank you so much, it's perfect", "Agradece muito, está tudo perfeito.", False),
        ("Mi pedido no llegó todavía", "Cliente dice que el pedido no llegó.", True),
        ("Mi pedido no llegó todavía", "Diz que o pedido ainda não chegou.", False),
        ("Привет, где мой заказ", "Клиент ищет заказ.", True),
        ("oi", "Клиент здоровается.", False),
        ("O que faço com isso?", 'Pergunta o que fazer com "your card was declined, try again".', True),
        ("a entrega de ontem não veio, vou cancelar", "Reclama do delivery e cita o feedback do app.", True),
    ],
)
def test_whether_a_summary_speaks_the_language_of_its_message(message: str, summary: str, right: bool) -> None:
    assert agrees(summary, message) is right


def test_a_text_without_words_has_no_language() -> None:
    assert [recognise(text) for text in ("", "🙏🙏", "123", "[CPF]", "kkkk", "ok")] == [None] * 6


def test_no_portuguese_message_is_taken_for_another_language() -> None:
    """Nor its own beginning refused as its summary; nor where the message before was too short to tell."""
    rows = (Path(__file__).parent / "data" / "sentiment_heldout.tsv").read_text("utf-8").splitlines()
    texts = [mask(row.split("\t")[2]) for row in rows]
    assert len(texts) >= 100
    assert {recognise(text) for text in texts} == {"pt", None}
    for text in texts:
        summary = answer(summary=summarise(text))
        assert parse(summary, question(text)).summary == parse(summary, question("ok " + text)).summary
        assert agrees(text, "ok")


# ------------------------------------------------------------------------------------------------ whatever comes

_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30))
_ANY = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
_NEAR = st.fixed_dictionaries(
    {
        "summary": st.one_of(_ANY, st.text(max_size=220), st.sampled_from(["Pede ajuda", "Asks", "529.982.247-25"])),
        "emotion": st.one_of(_ANY, st.sampled_from([*EMOTIONS, "ANGER", "Feliz", "positive"])),
        "tone": st.one_of(_ANY, st.sampled_from([*TONES, "polite", "Irônica"])),
        "sentiment": st.one_of(_ANY, st.floats(-1.2, 1.2), st.integers(-2, 2)),
        "satisfaction": st.one_of(_ANY, st.integers(-10, 110), st.floats(-1, 101)),
    }
)
#: Right in all but one place, or in all.
_ALMOST = st.builds(
    lambda near, keys: RIGHT | {key: near[key] for key in keys}, _NEAR, st.sets(st.sampled_from(list(RIGHT)))
)


@examples(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        _ANY.map(json.dumps),
        _NEAR.map(json.dumps),
        _ALMOST.map(json.dumps),
        st.builds(lambda whole, at: json.dumps(whole)[:at], _ALMOST, st.integers(0, 120)),
    ),
    message=st.text(max_size=40),
)
def test_what_gets_through_may_be_stored_and_what_does_not_is_a_broken_contract(text: str, message: str) -> None:
    try:
        analysis = parse(text, question(message), "Diga o que o cliente quer.")
    except BrokenContract:
        return
    assert checked(analysis) == analysis
    assert analysis.summary
    assert analysis.summary.splitlines() == [analysis.summary]
    assert mask(analysis.summary) == analysis.summary
    analysis.summary.encode()


@examples(max_examples=100, deadline=None)
@given(_ALMOST)
def test_reading_an_answer_again_changes_nothing(near: dict[str, Any]) -> None:
    try:
        analysis = parse(json.dumps(near), question())
    except BrokenContract:
        return
    again = {key: getattr(analysis, key) for key in RIGHT}
    assert parse(json.dumps(again), question()) == analysis
