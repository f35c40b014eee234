"""The counts of a model's conformance tests, and the sentence about a failure."""

from dataclasses import asdict

import pytest

from lab.base.messages import build
from lab.experiments.conformance.results import ModelResult

NAMES = tuple(f"tests/conformance/test_tls.py::test_{name}[tcp]@plain_socket" for name in "abcde")


def test_result_is_stored_and_read() -> None:
    result = ModelResult(98, 2, 3, ("one", "two"))
    assert asdict(result) == {"passed": 98, "failed": 2, "xfailed": 3, "failures": ("one", "two")}
    assert build(ModelResult, asdict(result)) == result
    assert build(ModelResult, {"passed": 7, "failed": 1, "xfailed": 2}) == ModelResult(7, 1, 2, ())


def test_counts_are_shown_in_words() -> None:
    assert str(ModelResult(98, 2, 3)) == "98 of 100"
    assert ModelResult(98, 2).known_limits == ""
    assert [ModelResult(1, 0, count).known_limits for count in (0, 1, 2)] == ["", "1 known limit", "2 known limits"]


@pytest.mark.parametrize(
    ("result", "backend", "reason"),
    [
        (ModelResult(0, 0, 5), None, "the conformance suite has no tests for it"),
        (ModelResult(1, 0), None, None),
        (ModelResult(1, 1), None, "1 of 2 conformance tests fail; `lab check m` shows why"),
        (ModelResult(9, 1), None, "1 of 10 conformance tests fail; `lab check m` shows why"),
        (
            ModelResult(8, 2, 0, NAMES[:2]),
            "process",
            "2 of 10 conformance tests fail: test_a[tcp], test_b[tcp]; `lab --backend process check m` shows why",
        ),
        (
            ModelResult(7, 3, 0, NAMES[:3]),
            None,
            "3 of 10 conformance tests fail: test_a[tcp], test_b[tcp], test_c[tcp]; `lab check m` shows why",
        ),
        (
            ModelResult(0, 5, 0, NAMES),
            None,
            "5 of 5 conformance tests fail: test_a[tcp], test_b[tcp], test_c[tcp] and 2 more; `lab check m` shows why",
        ),
    ],
)
def test_failure_is_explained(result: ModelResult, backend: str | None, reason: str | None) -> None:
    assert result.explain("m", backend) == reason
