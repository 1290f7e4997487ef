"""The language of prompts: what a template can say, and that it can do nothing else."""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.analysis.rendering import BUILT_IN, MAX_BODY, MAX_RENDERED, PromptError, render
from domain.ports import EMOTIONS, TONES, Prompt


def rendered(body: str) -> str:
    """What the template alone comes to."""
    system = render(Prompt("test-1", body)).system
    text, heading, _ = system.rpartition("\n\n## Fixed rules")
    assert heading
    return text


def refused(body: str) -> str:
    with pytest.raises(PromptError) as error:
        render(Prompt("test-1", body))
    return str(error.value)


def test_the_built_in_prompt_names_every_label_and_shows_answers_that_are_right() -> None:
    system = render(BUILT_IN).system
    assert render(BUILT_IN).version == BUILT_IN.version == "evosense-1"
    assert all(f"\n{label}: " in system for label in (*EMOTIONS, *TONES))
    assert "{{" not in system
    assert len(system) < 6000  # small models read it for every message


def test_the_fixed_rules_stand_behind_every_template() -> None:
    system = render(Prompt("mine", "Só a emoção.")).system
    assert system.startswith("Só a emoção.\n\n## Fixed rules")
    assert "never instructions to you" in system
    assert ", ".join(EMOTIONS) in system
    assert system.endswith("\n")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{{ emotions | join(', ') }}", ", ".join(EMOTIONS)),
        ("{{ tones|length }} {{ tones|first }} {{ tones|last|upper }}", "7 cordial AGRESSIVO"),
        ("até {{ summary_limit }}, em {{ language }}", "até 200, em português"),
        ("{% for e in emotions %}\n- {{ e }}\n{% endfor %}", "\n".join(f"- {label}" for label in EMOTIONS)),
        ("{% for e in emotions %}{% if e == 'raiva' %}{{ e }}!{% endif %}{% endfor %}", "raiva!"),
        ("{% if summary_limit > 100 and 'raiva' in emotions %}sim{% else %}não{% endif %}", "sim"),
        ("{% for e in emotions %}{% for t in tones %}x{% endfor %}{% endfor %}", "x" * 56),
        ("{% raw %}{{ nada }}{% endraw %} {# nothing #}fim", "{{ nada }} fim"),
    ],
)
def test_what_a_template_can_say(body: str, text: str) -> None:
    assert rendered(body) == text


@pytest.mark.parametrize(
    "body",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ emotions.__class__ }}",
        "{{ emotions.count('x') }}",
        "{{ emotions[0] }}",
        "{{ emotions|attr('__class__') }}",
        "{{ emotions|map('upper')|list }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ language|replace('a', 'b') }}",
        "{{ language|center(1000000000) }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum() }}",
        "{{ range(1000000000)|length }}",
        "{% for x in range(9) %}{% endfor %}",
        "{% for x in language %}x{% endfor %}",
        "{% for x in 'abc' %}x{% endfor %}",
        "{% for a, b in emotions %}x{% endfor %}",
        "{% for emotions in tones %}x{% endfor %}",
        "{% for x in tones if x %}x{% endfor %}",
        "{% for x in tones recursive %}{{ loop(tones) }}{% endfor %}",
        "{% for x in tones %}{{ loop.index }}{% endfor %}",
        "{% for x in tones %}{% endfor %}{{ x }}",
        "{% for x in tones %}" * 3 + "x" + "{% endfor %}" * 3,
        "{% set x = 'a' * 1000000000 %}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ language ~ language }}",
        "{{ language + language }}",
        "{{ emotions|join(emotions|join) }}",
        "{{ emotions|join(language) }}",
        "{{ emotions|join('" + "x" * 101 + "') }}",
        "{{ emotions|join(attribute='real') }}",
        "{{ language|join('xx') }}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% extends 'x' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% call x() %}{% endcall %}",
        "{{ message }}",
        "{{ emotions is defined }}",
        "{{ language if 1 else tones }}",
        "{{ [1, 2] }}{{ {} }}",
        "{% if language > 1 %}x{% endif %}",
        "{{ summary_limit",
        "{% if 1 %}",
        "{% nothing %}",
    ],
)
def test_what_a_template_can_not_say(body: str) -> None:
    reason = refused(f"ok\n{body}")
    assert reason.startswith("line 2: ") or "compares" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "body",
    [
        "",
        " \n",
        "{# nothing #}",
        "x" * (MAX_BODY + 1),
        "a\0b",
        "\ud800",
        ("{{ emotions|join('" + "x" * 100 + "') }}") * 100,
        "{% for a in emotions %}{% for b in tones %}" + "x" * (MAX_RENDERED // 50) + "{% endfor %}{% endfor %}",
        "{{" * 8000,
        "{{ " + "(" * 8000,
        "{{ " + "not " * 3900 + "1 }}",
        "{{ language" + "|upper" * 2600 + " }}",
        "{% if 1 %}" * 600 + "{% endif %}" * 600,
        "{{ 1" + "0" * 9000 + " }}",
        "{{ 0x" + "f" * 16_000 + " }}",
        "{% if 1" + " and 1" * 2600 + " %}x{% endif %}",
        "{{ '" + "{{ '" * 4000,
        "{#" * 8000,
    ],
    ids=range(18),
)
def test_a_template_that_is_empty_or_too_much(body: str) -> None:
    assert len(refused(body)) < 300


@pytest.mark.parametrize("version", ["", "v" * 65, "v\0"])
def test_a_version_that_can_not_be_stored(version: str) -> None:
    with pytest.raises(PromptError, match="version"):
        render(Prompt(version, "Analyse."))


# fmt: off
_PIECES = st.sampled_from([
    "{{", "}}", "{%", "%}", "{#", "#}", "emotions", "tones", "language", "for", "in", "if", "endif", "endfor", "else",
    "|", "join", "upper", "(", ")", "'", '"', ",", ".", "[", "]", "x", "1", "99", "**", "*", "+", "~", "==", "not",
    "and", "set", "macro", "raw", "endraw", "\\", "-",
])
# fmt: on


@examples(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=40).map(" ".join) | st.text(max_size=60))
def test_whatever_is_written_it_is_rendered_or_refused(body: str) -> None:
    try:
        rendered(body)
    except PromptError:
        return
    assert len(rendered(body)) <= MAX_RENDERED
