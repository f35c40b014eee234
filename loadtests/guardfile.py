"""What each locustfile that the lab starts needs: a locustfile without users, which is named before another one.

    locust -f loadtests/guardfile.py,mine.py

It ends Locust with the lab that started it, tells the lab that a worker has joined, guards the web UI like the one of
`lab load`, keeps response times to three digits, and prints each kind of failure at the end of a headless run.
"""

import sys
from typing import Any, cast

import locust.stats
from locust import events
from locust.env import Environment

from lab.base.messages import encode
from lab.load.messages import LoadFailure
from loadtests import lifeline
from loadtests.buckets import bucket_three_digits
from loadtests.joining import announce
from loadtests.web.access import AccessError, guard

_MOST_FAILURES = 20

locust.stats.bucket_response_time = cast(Any, bucket_three_digits)

lifeline.watch()


def guard_ui(environment: Environment, **_: Any) -> None:
    """Add the access checks to the web UI, if there is one."""
    if environment.web_ui is None:
        return
    try:
        guard(environment.web_ui, cast(Any, environment.parsed_options).web_base_path or "")
    except AccessError as error:
        sys.exit(f"guardfile: {error}")


def print_failures(environment: Environment, **_: Any) -> None:
    """Report the most frequent failures to the lab, on stderr: Locust prints its statistics to stdout."""
    if environment.web_ui is not None:
        return  # its page shows them
    errors = sorted(environment.stats.errors.values(), key=lambda error: -error.occurrences)
    for error in errors[:_MOST_FAILURES]:
        text = " ".join(str(error.error).split())
        failure = LoadFailure(f"{error.method} {error.name}: {text} ({error.occurrences} times)")
        print(encode(failure), file=sys.stderr, flush=True)


cast(Any, events.init).add_listener(guard_ui)
cast(Any, events.init).add_listener(announce)
cast(Any, events.quitting).add_listener(print_failures)
