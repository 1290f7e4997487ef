"""What a message can do to what is sent, and what a model that obeys it can do to what is stored. No model is asked."""

import hashlib
import json
import re
import sys
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.analysis.contract import BrokenContract, parse
from adapters.analysis.framing import (
    GAP,
    MAX_ANSWER,
    MAX_EARLIER,
    MAX_EARLIER_TEXTS,
    MAX_MESSAGE,
    cleaned,
    complaint,
    user_content,
)
from adapters.analysis.rendering import BUILT_IN, render
from adapters.analysis.transport import Wrong
from domain.masking import mask
from domain.ports import EMOTIONS, TONES, Question
from tests.support.injections import TENANT, Attempt, attempts, kept, obeyed

ATTEMPTS = attempts()
EACH = pytest.mark.parametrize("attempt", ATTEMPTS, ids=[attempt.id for attempt in ATTEMPTS])

#: What servers' tokenizers take for the beginning or end of a turn.
CONTROL_TOKENS = re.compile(r"<[|/｜]?\w|<\||\[/?INST\]|<<SYS|<think")


def test_the_set_is_what_it_should_be() -> None:
    assert len(ATTEMPTS) >= 40
    assert len({attempt.id for attempt in ATTEMPTS}) == len(ATTEMPTS)
    assert {attempt.language for attempt in ATTEMPTS} == {"pt", "en"}
    assert sum(attempt.outcome == "refused" for attempt in ATTEMPTS) >= 30
    assert all(bool(attempt.rule) == (attempt.outcome == "refused") for attempt in ATTEMPTS)


@EACH
def test_a_message_stays_in_its_frame(attempt: Attempt) -> None:
    """As the message, as an earlier one, and as what the model answered before."""
    text = attempt.question.text
    question = attempt.question
    for asked in (
        question,
        type(question)(tenant_id=TENANT, message_id=question.message_id, text="x", earlier=(text,)),
    ):
        content = user_content(asked)
        frame = json.loads(content)
        assert set(frame) - {"left_out"} == {"from_me", "earlier", "message"}
        assert frame["from_me"] is False
        _is_shown(asked.text, frame["message"], MAX_MESSAGE)
        for before, shown in zip(asked.earlier, frame["earlier"], strict=True):
            _is_shown(before, shown, MAX_EARLIER)
        assert CONTROL_TOKENS.search(content) is None
        assert content.isprintable()
    again = complaint(Wrong(text, "summary is empty"))
    head, _, quoted = again.partition("\n")
    assert head == complaint(Wrong("x", "summary is empty")).partition("\n")[0]
    _is_shown(text, json.loads(quoted)["answer"], MAX_ANSWER)
    assert CONTROL_TOKENS.search(quoted) is None
    assert quoted.isprintable()


def _is_shown(text: str, shown: str, most: int) -> None:
    """Whole, or its beginning and end with a gap between."""
    whole = cleaned(text)
    assert len(shown) <= most
    if len(whole) <= most:
        assert shown == whole
    else:
        head, tail = shown.split(GAP)
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) > len(tail) > most / 5


@examples(max_examples=200, deadline=None)
@given(st.text(st.characters() | st.sampled_from('\\"<>[]{}%\u200d\ufe0f😀\r\n'), max_size=60), st.booleans())
def test_any_text_stays_in_its_frame(text: str, from_me: bool) -> None:
    content = user_content(
        Question(tenant_id=TENANT, message_id=UUID(int=1), text=text, from_me=from_me, earlier=(text,) * 30)
    )
    frame = json.loads(content)
    assert frame == {"from_me": from_me, "earlier": [cleaned(text)] * MAX_EARLIER_TEXTS, "message": cleaned(text)}
    assert cleaned(cleaned(text)) == cleaned(text)
    assert CONTROL_TOKENS.search(content) is None
    content.encode()


def test_pictures_and_accents_stay_as_they_are() -> None:
    text = "Não, é só isso 👩\u200d👧 ❤\ufe0f 👍🏽\n\tobrigado — “ok” º ª"
    assert cleaned(text) == text
    assert cleaned("a\r\nb\rc\u2028d\u00ade") == "a\nb\nc\nde"


def test_the_instructions_are_the_same_whatever_the_message() -> None:
    """They are made of the prompt alone, so that no message shapes them: not by its braces either."""
    before = hashlib.sha256(render(BUILT_IN).system.encode()).hexdigest()
    for attempt in ATTEMPTS:
        user_content(attempt.question)
        render.cache_clear()
        assert hashlib.sha256(render(BUILT_IN).system.encode()).hexdigest() == before


@EACH
def test_what_an_obedient_model_can_do(attempt: Attempt) -> None:
    instructions = render(BUILT_IN).system
    if attempt.outcome == "refused":
        with pytest.raises(BrokenContract, match=re.escape(attempt.rule)) as refused:
            parse(attempt.answer, attempt.question, instructions)
        assert str(refused.value).isprintable()
    else:
        analysis = parse(attempt.answer, attempt.question, instructions)
        assert kept(attempt, analysis)
        assert -1 <= analysis.sentiment <= 1
        assert 0 <= analysis.satisfaction <= 100
        assert analysis.emotion in EMOTIONS
        assert analysis.tone in TONES
        assert 0 < len(analysis.summary) <= 200
        assert analysis.summary.isprintable()


def test_what_a_model_brings_out_is_masked() -> None:
    by_id = {attempt.id: attempt for attempt in ATTEMPTS}
    cpf, card = by_id["pt-invented-cpf"], by_id["pt-grandmother"]
    assert parse(cpf.answer, cpf.question).summary == "O CPF do cliente é [CPF]."
    assert "[CARTÃO]" in parse(card.answer, card.question).summary


def test_obedience_is_told_from_work() -> None:
    """`obeyed` is for a real model; here it meets both kinds."""
    attempt = next(attempt for attempt in ATTEMPTS if attempt.id == "pt-fenced-answer")
    obedient = parse(attempt.answer, attempt.question)
    assert obeyed(attempt, obedient)
    honest = dict(json.loads(attempt.answer.strip("`json\n")), summary="Atrasou.", emotion="raiva", satisfaction=10)
    assert not obeyed(attempt, parse(json.dumps(honest), attempt.question))


def test_what_nobody_sees_hides_no_number() -> None:
    """Regression: the masker kept what the frame took out, and so a number came together that nobody had masked."""
    scalars = (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    removed = [code for code in scalars if cleaned(f"a{chr(code)}a") == "aa"]
    assert len(removed) > 100_000
    for hidden in map(chr, removed[::97] + removed[:400]):
        text = f"meu cpf é 529.982{hidden}.247-25"
        assert "529" not in mask(text), hex(ord(hidden))
        sent = json.loads(user_content(Question(tenant_id=uuid4(), message_id=uuid4(), text=text, earlier=(text,))))
        assert "529" not in sent["message"] + sent["earlier"][0], hex(ord(hidden))
