"""What an inference does with its command."""

import math
from uuid import UUID

import pytest

from domain.errors import Invalid
from domain.experiments import LIVE_RUN, InferenceRecorded, RecordInference, inference, inference_id
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

MESSAGE = UUID("33333333-3333-4333-8333-333333333333")
EMPTY = inference(inference_id(MESSAGE, LIVE_RUN, "p-1", "m-1"))
FIELDS = {
    "message_id": MESSAGE,
    "model_name": "m-1",
    "prompt_version": "p-1",
    "template_hash": "f" * 64,
    "latency_ms": 12,
    "sentiment": 0.25,
    "emotion": "alegria",
    "satisfaction": 80,
}
RECORDED = fact(InferenceRecorded, EMPTY, **FIELDS, is_shadow=False, run_id=LIVE_RUN)


def record(**fields: object) -> RecordInference:
    return RecordInference(at=NOW, tenant_id=TENANT, **{**FIELDS, **fields})


def test_an_answer_is_recorded_once() -> None:
    given(EMPTY).when(record()).then(RECORDED)
    given(EMPTY, RECORDED).when(record()).then()
    given(EMPTY, RECORDED).when(record(latency_ms=99)).then()


def test_message_run_prompt_and_model_make_it_unique() -> None:
    others = {
        inference_id(TENANT, LIVE_RUN, "p-1", "m-1"),
        inference_id(MESSAGE, "other", "p-1", "m-1"),
        inference_id(MESSAGE, LIVE_RUN, "p-2", "m-1"),
        inference_id(MESSAGE, LIVE_RUN, "p-1", "m-2"),
        # The parts must not run into one another.
        inference_id(MESSAGE, LIVE_RUN, "p-1m", "-1"),
    }
    assert len(others | {EMPTY.id}) == 6


@pytest.mark.parametrize(
    ("wrong", "saying"),
    [
        ({"model_name": ""}, "model_name has 1 to 64"),
        ({"prompt_version": "x" * 65}, "prompt_version has 1 to 64"),
        ({"template_hash": "x" * 65}, "template_hash has 1 to 64"),
        ({"run_id": ""}, "run_id has 1 to 64"),
        ({"emotion": "x" * 41}, "emotion has 1 to 40"),
        ({"emotion": "ale\0gria"}, "NUL"),
        ({"latency_ms": -1}, "latency_ms lies between"),
        ({"latency_ms": 2**31}, "latency_ms lies between"),
        ({"sentiment": math.nan}, "between -1 and 1"),
        ({"satisfaction": 101}, "between 0 and 100"),
    ],
)
def test_what_no_row_can_hold_is_refused(wrong: dict[str, object], saying: str) -> None:
    given(EMPTY).when(record(**wrong)).refused(Invalid, saying)


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, RECORDED).when(ReactivateTenant(at=NOW)).refused(Invalid, "ReactivateTenant")
