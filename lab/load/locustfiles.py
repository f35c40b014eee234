"""Run Locust with a locustfile of ordinary users: that of the gallery, that of HTTP, or one of the user."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.base.environ import ENV_LOCUSTFILES
from lab.base.errors import LabError, last_lines
from lab.base.messages import decode
from lab.load.generator import run_generator
from lab.load.messages import LoadFailure
from lab.servers.backend import Completed, Helpers, Listening, Loadable
from lab.servers.catalogue import Model
from loadtests.sockets.histogram import percentile
from services.protocol import Transport

# Named before each locustfile: it ends Locust with the lab, guards the web UI, and prints failures.
_GUARD = "loadtests/guardfile.py"
HTTP_FILE = "loadtests/httpfile.py"

# Where the folder of a locustfile is mounted in a container; compose.yaml.
_MOUNTED = "/locustfiles"

# Time to start Locust, and for users to finish their last steps.
_SLACK_SECONDS = 60.0

_SERVICE = "http"
# Capabilities, and the tags of the tasks that need them: replies that are not static, and WebSocket.
_TAGS = ("work", "websocket")


def name_files(*files: str) -> list[str]:
    """Return the arguments for Locust that select these locustfiles, behind the guard."""
    return ["-f", ",".join((_GUARD, *files))]


def place(backend: Loadable, file: Path) -> tuple[str, dict[str, str]]:
    """Return the path of a locustfile where Locust runs, and the variables that its container needs.

    Raises:
        LabError: Locust could not read it.
    """
    path = file.resolve()
    if "," in str(path):
        raise LabError(f"{file}: Locust separates locustfiles by commas, so the path must not contain one: rename it")
    if not backend.in_containers:
        return str(path), {}
    # The container's user is neither the owner nor in the group.
    for item, bits, word in ((path, 0o4, "readable"), (path.parent, 0o5, "accessible")):
        if item.stat().st_mode & bits != bits:
            raise LabError(f"{item} is not {word} for other users, so not in the container: chmod o+rX {item}")
    return f"{_MOUNTED}/{path.name}", {ENV_LOCUSTFILES: str(path.parent)}


def choose_host(backend: Listening, model: Model) -> str:
    """Return the URL of a running model for Locust's `--host`.

    Raises:
        LabError: the model does not run, or does not speak HTTP over TCP.
    """
    if (_SERVICE, Transport.TCP) not in {(item.service, item.transport) for item in model.addresses}:
        raise LabError(f"{model.name} does not speak {_SERVICE} over tcp; `lab ls --json` lists the models that do")
    for item in backend.targets():
        if (item.model, item.service, item.transport) == (model.name, _SERVICE, Transport.TCP):
            return f"http://{item.address.removeprefix('tcp://')}"
    raise LabError(f"{model.name} is not running; start it with: lab up {model.name}")


def choose_tags(model: Model) -> list[str]:
    """Return the arguments that leave out the tasks of `HTTP_FILE` that a model declares to lack."""
    lacking = [tag for tag in _TAGS if tag in model.limits]
    return ["--exclude-tags", *lacking] if lacking else []


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of one protocol took.

    Args:
        taken: count of runs.
        failures: how many of them failed.
        rate: runs per second.
        p50_ms, p99_ms: None without a run.
    """

    protocol: str
    step: str
    taken: int
    failures: int
    rate: float
    p50_ms: float | None
    p99_ms: float | None


def run_headless(
    helpers: Helpers,
    locustfiles: Sequence[str],
    chosen: Sequence[str],
    users: int,
    seconds: float,
    *,
    workers: int = 0,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> list[Step]:
    """Run users for this long, print each kind of failure on stderr, and return what each step took.

    Args:
        locustfiles: the arguments of Locust that select them and their tasks, for workers as well.
        chosen: further arguments, such as the classes of users.
        users: their number.
        workers: the number of processes that run them, led by one more; 0: a single process.
        environ: further variables.

    Raises:
        LabError: Locust failed, or a worker did not join.
    """
    arguments = [*locustfiles, *chosen, "--headless", "--json", "--users", str(users), "--spawn-rate", str(users)]
    arguments += ["--run-time", f"{seconds:g}s", "--stop-timeout", "15", "--loglevel", "ERROR"]
    done = run_generator(
        helpers,
        arguments,
        workers=workers,
        environ=environ,
        timeout=seconds + _SLACK_SECONDS,
        worker_arguments=locustfiles,
    )
    for failure in find_failures(done.stderr + done.stdout):
        print(f"lab: {failure}", file=sys.stderr)
    return read_steps(done, seconds)


def find_failures(output: str) -> list[str]:
    """Return the failures that the guard has reported."""
    found = (decode(line, LoadFailure) for line in output.splitlines())
    return [failure.text for failure in found if failure]


def read_steps(done: Completed, seconds: float) -> list[Step]:
    """Parse the output of a Locust run of this many seconds; see `run_headless`.

    Raises:
        LabError: it is not the JSON of a finished run.
    """
    # A locustfile may print, too: Locust's JSON begins in a line of its own. With workers, stdout is also the stderr of
    # the master, where tables come last.
    start = done.stdout.rfind("\n[") + 1 if "\n[" in done.stdout else done.stdout.find("[")
    try:
        entries = json.JSONDecoder().raw_decode(done.stdout, start)[0] if start >= 0 else None
    except ValueError:
        entries = None
    # 1: a step has failed, which the table shows better.
    if entries is None or done.returncode not in (0, 1):
        said = last_lines(done.stderr + done.stdout, 15)
        raise LabError("\n  ".join([f"Locust ended with exit code {done.returncode}:", *said]))
    return [_read_step(entry, seconds) for entry in entries]


def _read_step(entry: Mapping[str, Any], seconds: float) -> Step:
    times = sorted((float(time), int(count)) for time, count in entry["response_times"].items())
    return Step(
        protocol=entry["method"],
        step=entry["name"],
        taken=entry["num_requests"],
        failures=entry["num_failures"],
        rate=entry["num_requests"] / seconds,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
    )
