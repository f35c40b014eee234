"""A fork server for Locust, which runs one load after the other: `python -m loadtests.fork_server`.

For each `RunLoad` on stdin it forks, and the child runs Locust. So each load has a fresh process, without the seconds
that Python's imports and a container take. After the output of the load it sends a `LoadEnded`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from traceback import print_exc
from typing import Any, NoReturn, cast

# First: it patches modules that others import.
import locust.main
from gevent import get_hub, monkey
from gevent.os import fork_gevent

from lab.base.messages import decode, say
from lab.load import cores, http_exchanges  # noqa: F401 - see below
from lab.load.messages import LoadEnded, RunLoad
from lab.servers.children import die_with_lab

# What the locustfile imports: each load finds it in memory.
from loadtests import buckets, idle_connections, objections, rate_shares, run_time, scripts, window  # noqa: F401
from loadtests.web import form, tables  # noqa: F401

_LOCUSTFILE = "loadtests/locustfile.py"

# The patched waitpid would start an event loop, which the next child would inherit.
_waitpid: Any = monkey.get_original("os", "waitpid")


def main() -> None:
    for line in sys.stdin.buffer:
        order = decode(line.decode(), RunLoad)
        if order is None:
            continue
        child = fork_gevent()
        if child == 0:
            _run(order.arguments, order.environ)
        _, status = _waitpid(child, 0)
        print()  # the output of the load may have no newline at its end
        say(LoadEnded(os.waitstatus_to_exitcode(status)))


def _run(arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Run Locust and exit; never return to the parent's loop."""
    code: Any = 1
    try:
        die_with_lab()
        # Its clock has stood still since the parent's imports, and the first timers would end early by that.
        get_hub().loop.update_now()
        os.environ.update(environ)
        sys.argv = ["locust", "-f", _LOCUSTFILE, *arguments]
        cast(Any, locust.main).main()  # not annotated by Locust
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code
    except BaseException:
        print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
