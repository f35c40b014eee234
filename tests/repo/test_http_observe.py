"""The judge of docs/http-servers.md and of the cases of HTTP: what it takes for right, and what it does not."""

import pytest

from tests.support.http_cases import Case
from tests.support.http_observe import Observation, describe_right, is_right

ACCEPT = Case("a", b"", frozenset({200}), goes_on=True, ours=False)
REFUSE = Case("b", b"", frozenset({400, 501}), goes_on=False, ours=False)


@pytest.mark.parametrize(
    ("case", "seen", "lenient", "strict"),
    [
        (ACCEPT, Observation(200, 200, "open"), True, True),
        (ACCEPT, Observation(200, None, "closed", announced=True), True, False),
        (ACCEPT, Observation(200, None, "closed"), False, False),
        (ACCEPT, Observation(200, 404, "open"), False, False),  # the body was taken for a request
        (ACCEPT, Observation(400, 200, "open"), False, False),
        (ACCEPT, Observation(None, None, "silent"), False, False),
        (REFUSE, Observation(400, None, "closed", announced=True), True, True),
        (REFUSE, Observation(501, None, "closed"), True, False),
        (REFUSE, Observation(400, 200, "open", announced=True), False, False),
        (REFUSE, Observation(400, 200, "closed", announced=True), False, False),
        (REFUSE, Observation(400, None, "silent", announced=True), False, False),
        (REFUSE, Observation(200, None, "closed", announced=True), False, False),
        (REFUSE, Observation(None, None, "closed"), False, False),
    ],
)
def test_what_a_server_did_is_judged(case: Case, seen: Observation, lenient: bool, strict: bool) -> None:
    assert (is_right(case, seen), is_right(case, seen, persists=True)) == (lenient, strict)


def test_observation_is_described() -> None:
    seen = [
        Observation(200, 404, "open"),
        Observation(400, None, "closed"),
        Observation(200, None, "silent"),
        Observation(None, None, "silent"),
        Observation(None, None, "closed"),
        Observation(None, None, "no HTTP"),
    ]
    assert list(map(str, seen)) == [
        *("200, then 404", "400, closes", "200, then waits"),
        *("waits", "closes without a reply", "answers, but not in HTTP"),
    ]
    assert (describe_right(ACCEPT), describe_right(REFUSE)) == ("200", "400 or 501, closes")
