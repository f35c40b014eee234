"""`lab load-gallery`: users of FTP, mail, the web, XML-RPC and news, at moderate load, to see that the servers hold."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from lab.base.errors import LabError
from lab.cli.commands.load import serve_ui
from lab.cli.params import SECONDS
from lab.servers.backend import Completed
from lab.servers.children import ENV_LIFELINE

if TYPE_CHECKING:
    from lab.cli.context import Lab

# The classes of loadtests/galleryfile.py, by the word for them here; and the servers that each needs.
USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ftp": ("FtpUser", ("gallery_ftp",)),
    "mail": ("MailUser", ("gallery_smtp", "gallery_mail")),
    "web": ("WebUser", ("gallery_web",)),
    "web-churn": ("WebChurnUser", ("gallery_web",)),
    "xmlrpc": ("XmlRpcUser", ("gallery_xmlrpc",)),
    "news": ("NewsUser", ("gallery_news",)),
}
_FILE = "loadtests/galleryfile.py"
_MODELS_FILE = "loadtests/locustfile.py"

# What stands before each failure that is logged there.
_FAILURE = "/ERROR/loadtests.gallery: "

# Beyond the time of the load: to start Locust, and for users to finish their last steps.
_SLACK_SECONDS = 60.0


@click.command("load-gallery")
@click.argument("kinds", nargs=-1, type=click.Choice(list(USERS)), metavar="[KIND]...")
@click.option("--users", type=click.IntRange(1, 100), default=12, show_default=True, help="How many, of all kinds.")
@click.option("--duration", type=SECONDS, default="10s", show_default=True, help="How long, headless.")
@click.option("--headless", is_flag=True, help="No web UI: a table of what was done, and 1 if any of it failed.")
@click.option("--json", "as_json", is_flag=True, help="Headless, and print what was done as JSON.")
@click.pass_obj
def load_gallery(
    lab: "Lab", kinds: tuple[str, ...], users: int, duration: float, headless: bool, as_json: bool
) -> None:
    """Load the gallery's servers (see `lab up --profile gallery`), every reply checked.

    KIND is a kind of user: ftp, mail, web, web-churn, xmlrpc, news; by default all whose servers run. Without
    --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT), with the users of the models that run beside
    them.
    """
    chosen = choose_users(kinds, {state.model for state in lab.backend.gallery() if state.state == "running"})
    if headless or as_json:
        rows = run_headless(lab.backend, chosen, users, duration)
        show(rows, as_json=as_json)
        sys.exit(1 if any(row["failures"] for row in rows) or not rows else 0)
    # The users of the models that run can be chosen there too; and only where none runs, these are all that there are.
    running = {listener.model for listener in lab.backend.targets()}
    models = [model for model in lab.catalogue.models if model.name in running]
    arguments = ["-f", f"{_MODELS_FILE},{_FILE}"] if models else ["-f", _FILE, *chosen]
    arguments += ["--class-picker", "--users", str(users), "--spawn-rate", str(users)]
    serve_ui(lab.backend, models, arguments)


def choose_users(kinds: Iterable[str], running: Iterable[str]) -> list[str]:
    """The classes of Locust's users of these kinds, or of all whose servers run.

    Raises:
        LabError: a server that one of them needs does not run, or there is none left.
    """
    named, servers = list(kinds), set(running)
    absent = {kind: [name for name in needed if name not in servers] for kind, (_, needed) in USERS.items()}
    for kind in named:
        if absent[kind]:
            raise LabError(
                f"{kind} needs {', '.join(absent[kind])}: `lab up {' '.join(absent[kind])}` starts what is missing"
            )
    chosen = named or [kind for kind in USERS if not absent[kind]]
    if not chosen:
        raise LabError("no server of the gallery is running that there are users for: `lab up --profile gallery`")
    return [USERS[kind][0] for kind in dict.fromkeys(chosen)]


def run_headless(backend: Any, classes: Iterable[str], users: int, seconds: float) -> list[dict[str, Any]]:
    """Load for so many seconds.

    Returns:
        For each step of each protocol: `protocol`, `step`, how often it was taken (`taken`) and failed (`failures`),
        `rate` (per second), `p50_ms` and `p99_ms`.

    Raises:
        LabError: Locust could not do it.
    """
    arguments = ["-f", _FILE, *classes, "--headless", "--json", "--users", str(users), "--spawn-rate", str(users)]
    arguments += ["--run-time", f"{seconds:g}s", "--stop-timeout", "15", "--loglevel", "ERROR"]
    environ = {ENV_LIFELINE: "stdin"}
    done = backend.run_service("locust", arguments, environ=environ, capture=True, timeout=seconds + _SLACK_SECONDS)
    for line in done.stderr.splitlines():
        if _FAILURE in line:
            print(f"lab: {line.partition(_FAILURE)[2]}", file=sys.stderr)
    return read_steps(done, seconds)


def read_steps(done: Completed, seconds: float) -> list[dict[str, Any]]:
    """What Locust has printed of so many seconds, as `run_headless` returns it.

    Raises:
        LabError: it is not what it should be.
    """
    start = done.stdout.find("[")
    try:
        entries = json.loads(done.stdout[start:]) if start >= 0 else None
    except ValueError:
        entries = None
    # 1: something has failed, which the table says better.
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
        "p50_ms": _percentile(times, 0.5),
        "p99_ms": _percentile(times, 0.99),
    }


def _percentile(times: Iterable[tuple[float, int]], share: float) -> float | None:
    """The time within which this share of all was done; None of nothing."""
    known = list(times)
    left = share * sum(count for _, count in known)
    for time, count in known:
        left -= count
        if left <= 0:
            return time
    return None


def show(rows: Iterable[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the steps: as JSON, or as a table."""
    from lab.cli.tables import show_table

    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    columns = ["protocol", "step", "taken", "failed", "per second", "p50 ms", "p99 ms"]
    ordered = sorted(rows, key=lambda row: str(row["protocol"]))
    cells = [
        [row["protocol"], row["step"], str(row["taken"]), str(row["failures"])]
        + ["" if row[key] is None else f"{row[key]:.3g}" for key in ("rate", "p50_ms", "p99_ms")]
        for row in ordered
    ]
    show_table(columns, cells, group=0)
