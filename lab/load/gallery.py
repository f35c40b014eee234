"""Load the gallery's servers with users of FTP, mail, the web, XML-RPC and news, at moderate load."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from lab.base.environ import ENV_LIFELINE
from lab.base.errors import LabError
from lab.servers.backend import Completed, Helpers
from loadtests.sockets.histogram import percentile

# By kind of user: its class in loadtests/galleryfile.py, and the servers that it needs.
USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ftp": ("FtpUser", ("gallery_ftp",)),
    "mail": ("MailUser", ("gallery_smtp", "gallery_mail")),
    "web": ("WebUser", ("gallery_web",)),
    "web-churn": ("WebChurnUser", ("gallery_web",)),
    "xmlrpc": ("XmlRpcUser", ("gallery_xmlrpc",)),
    "news": ("NewsUser", ("gallery_news",)),
}
FILE = "loadtests/galleryfile.py"

# The prefix of each failure in Locust's log.
_FAILURE = "/ERROR/loadtests.gallery: "

# Time to start Locust, and for users to finish their last steps.
_SLACK_SECONDS = 60.0


def choose_users(kinds: Iterable[str], running: Iterable[str]) -> list[str]:
    """Return the Locust classes of these kinds of users; default: all whose servers run.

    Raises:
        LabError: a kind needs a server that does not run, or no kind is left.
    """
    named, servers = list(kinds), set(running)
    absent = {kind: [name for name in needed if name not in servers] for kind, (_, needed) in USERS.items()}
    for kind in named:
        if absent[kind]:
            raise LabError(
                f"{kind} needs {', '.join(absent[kind])}: start what is missing with `lab up {' '.join(absent[kind])}`"
            )
    chosen = named or [kind for kind in USERS if not absent[kind]]
    if not chosen:
        raise LabError("no server of the gallery is running: start them with `lab up --profile gallery`")
    return [USERS[kind][0] for kind in dict.fromkeys(chosen)]


def run_headless(helpers: Helpers, classes: Iterable[str], users: int, seconds: float) -> list[dict[str, Any]]:
    """Run the users of these classes, and return what each step took.

    Returns:
        For each step of each protocol: `protocol`, `step`, the count of runs (`taken`) and of `failures`, `rate` (per
        second), `p50_ms` and `p99_ms`.

    Raises:
        LabError: Locust failed.
    """
    arguments = ["-f", FILE, *classes, "--headless", "--json", "--users", str(users), "--spawn-rate", str(users)]
    arguments += ["--run-time", f"{seconds:g}s", "--stop-timeout", "15", "--loglevel", "ERROR"]
    environ = {ENV_LIFELINE: "stdin"}
    done = helpers.run_service("locust", arguments, environ=environ, capture=True, timeout=seconds + _SLACK_SECONDS)
    for line in done.stderr.splitlines():
        if _FAILURE in line:
            print(f"lab: {line.partition(_FAILURE)[2]}", file=sys.stderr)
    return read_steps(done, seconds)


def read_steps(done: Completed, seconds: float) -> list[dict[str, Any]]:
    """Parse the output of a Locust run of this many seconds; see `run_headless`.

    Raises:
        LabError: it is not the JSON of a finished run.
    """
    start = done.stdout.find("[")
    try:
        entries = json.loads(done.stdout[start:]) if start >= 0 else None
    except ValueError:
        entries = None
    # 1: a step has failed, which the table shows better.
    if entries is None or done.returncode not in (0, 1):
        said = (done.stderr + done.stdout).strip().splitlines()[-15:]
        raise LabError("\n  ".join([f"Locust ended with exit code {done.returncode}:", *said]))
    return [_read_step(entry, seconds) for entry in entries]


def _read_step(entry: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    times = sorted((float(time), int(count)) for time, count in entry["response_times"].items())
    return {
        "protocol": entry["method"],
        "step": entry["name"],
        "taken": entry["num_requests"],
        "failures": entry["num_failures"],
        "rate": entry["num_requests"] / seconds,
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
    }
