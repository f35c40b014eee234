"""What `lab load`, `lab load-file` and `lab load-gallery` hand on, and their exit codes. Nothing is loaded."""

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner, Result

from lab.base.environ import (
    ENV_FAULTS,
    ENV_LOCUSTFILES,
    ENV_TARGETS,
    ENV_TELEMETRY,
    ENV_UI_BASE_PATH,
    ENV_UI_LOGIN,
    ENV_UI_ORIGINS,
    ENV_UI_PORT,
)
from lab.base.errors import LabError
from lab.base.messages import encode
from lab.cli.commands import load, load_file, load_gallery
from lab.experiments.faults.registry import FAULTS
from lab.load import locustfiles, web_ui
from lab.load.external_server import ExternalServer
from lab.load.locustfiles import Step, choose_tags, run_headless
from lab.load.measurement import Measurement, encode_targets
from lab.load.messages import LoadFailure
from lab.load.presets import Preset, find_preset
from lab.load.workloads import CUSTOM_PROTOCOL, Workload
from lab.metrics.verdict import Limit, Verdict
from lab.servers.backend import Completed, ModelState
from lab.servers.catalogue import Catalogue, Listener, Model
from services.protocol import Transport
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()
SERVED = (("command", "tcp", 6379), ("command", "tls", 6380), ("http", "tcp", 8080))


class FakeLab(UnusedBackend):
    """A lab in which some models run; it notes what it is asked to do."""

    def __init__(self, *running: str) -> None:
        self.running = list(running)
        self.others: Mapping[str, Literal["running", "exited"]] = {}  # of the gallery
        self.events: list[str] = []
        self.served: list[tuple[str, Sequence[str], Mapping[str, Any]]] = []
        self.printed = Completed([], 0, "[]", "")

    def targets(self) -> list[Listener]:
        return [
            Listener(name, service, transport, f"{transport}://{name}:{port}")
            for name in self.running
            for service, transport, port in SERVED
        ]

    def state(self) -> list[ModelState]:
        return [ModelState(name, "thread", "process", "running") for name in self.running]

    def gallery(self) -> list[ModelState]:
        return [ModelState(name, "gallery", "process", state) for name, state in self.others.items()]

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.running = [str(getattr(model, "name", model)) for model in models]
        self.events.append(f"up {' '.join(self.running)}")

    def down(self) -> None:
        self.events.append("down")

    def run_service(self, service: str, arguments: Sequence[str] = (), **options: Any) -> Completed:
        self.served.append((service, arguments, options))
        return self.printed

    def choose_bind(self, port: int, *, local: int | None = None) -> tuple[str, int]:
        return "127.0.0.1", port + (local or 0)


class Loading:
    """Takes the place of `measure`: gives each model another verdict, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, Preset, Path | None, int]] = []
        self.verdicts: dict[str, Limit] = {}
        self.error: BaseException = LabError("it gave no result")
        monkeypatch.setattr(load, "measure", self.measure)

    def measure(self, backend: object, model: Model, asked: Preset, *, codec: Path | None, workers: int) -> Measurement:
        self.asked.append((model.name, asked, codec, workers))
        if model.name == "thread_pool":
            raise self.error
        bound = self.verdicts.get(model.name, Limit.SERVER)
        return replace(vary(MEASUREMENT, model=model.name), verdict=Verdict(bound, "a reason"))


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    return Loading(monkeypatch)


def invoke(command: Any, lab: FakeLab, *words: str) -> Result:
    return CliRunner().invoke(command, words, obj=SimpleNamespace(backend=lab, catalogue=CATALOGUE))


def test_each_model_is_loaded_with_all_options(loading: Loading) -> None:
    words = "--headless --preset open_steady --users 3 --rate 77 --duration 1500ms --transport tls --warm-up 250ms"
    words += " --timeout 2s --workers 2 prefork plain_socket"
    done = invoke(load.load, FakeLab("prefork", "plain_socket", "thread_pool"), *words.split())
    assert done.exit_code == 0, done.output
    said = [f"open_steady: {name}, 3 users, 1.5 s" for name in ("plain_socket", "prefork")]
    assert done.stderr.splitlines() == said
    assert [(name, codec, workers) for name, _, codec, workers in loading.asked] == [
        ("plain_socket", None, 2),
        ("prefork", None, 2),
    ]
    for _, asked, _, _ in loading.asked:
        spec = asked.spec
        assert (asked.name, spec.workload, spec.loop, spec.transport) == ("open_steady", "ping", "open", Transport.TLS)
        assert (spec.users, spec.rate, spec.window, spec.warm_up, spec.timeout) == (3, 77.0, 1.5, 0.25, 2.0)


def test_load_without_a_preset_is_put_together(loading: Loading) -> None:
    words = "--headless --workload ping --loop open --shape ramp --arrivals random --rate 5 prefork"
    done = invoke(load.load, FakeLab("prefork"), *words.split())
    assert done.exit_code == 0, done.output
    ((_, asked, _, _),) = loading.asked
    spec = asked.spec
    assert (spec.workload, spec.loop, spec.shape, spec.arrivals) == ("ping", "open", "ramp", "random")
    assert spec.rate == 5.0


@pytest.mark.parametrize(
    ("verdict", "words", "code"),
    [
        (Limit.SERVER, "", 0),
        (Limit.WRONG, "", 1),
        (Limit.WRONG, "--allow-failures", 0),
        (Limit.DISTURBED, "--allow-failures", 2),
        (Limit.SERVER, "--fail-if rate>1", 1),
        (Limit.WRONG, "--allow-failures --fail-if rate>1", 1),
        # A measurement that means nothing trips nothing.
        (Limit.DISTURBED, "--fail-if rate>1", 2),
    ],
)
def test_exit_code_is_that_of_the_verdicts_and_the_conditions(
    loading: Loading, verdict: Limit, words: str, code: int
) -> None:
    loading.verdicts["prefork"] = verdict
    assert invoke(load.load, FakeLab("plain_socket", "prefork"), "--headless", *words.split()).exit_code == code


@pytest.mark.parametrize("error", [LabError("it gave no result"), KeyboardInterrupt()])
def test_models_that_were_measured_before_the_end_are_printed_and_kept(
    loading: Loading, tmp_path: Path, error: BaseException
) -> None:
    """After a failure, and after Ctrl-C."""
    loading.error = error
    lab = FakeLab("plain_socket", "thread_pool", "prefork")
    done = invoke(load.load, lab, "--out", str(tmp_path), "plain_socket", "thread_pool", "prefork")
    if isinstance(error, LabError):
        assert done.exception is error
    else:
        assert done.stderr.endswith("\nAborted!\n")  # of click; see `lab.cli.main`
    assert "plain_socket" in done.stdout
    assert "prefork" not in done.stdout
    assert {path.name.partition(".")[0] for path in (tmp_path / "load").iterdir()} >= {"closed_session-plain_socket"}


def test_models_that_the_command_starts_are_taken_down(loading: Loading) -> None:
    lab = FakeLab()
    assert invoke(load.load, lab, "--headless", "--up", "prefork").exit_code == 0
    assert lab.events == ["up prefork", "down"]
    lab = FakeLab()
    assert isinstance(invoke(load.load, lab, "--headless", "--up", "thread_pool").exception, LabError)
    assert lab.events == ["up thread_pool", "down"]
    # Models that others have started stay.
    lab = FakeLab("prefork")
    assert invoke(load.load, lab, "--headless", "--up", "prefork").exit_code == 0
    assert lab.events == []


class Page:
    """Takes the place of the web UI."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[list[str], list[str], Mapping[str, Any]]] = []
        for module in (load, load_file, load_gallery):
            monkeypatch.setattr(module, "open_ui", self.open)
        for module in (load, load_file):
            monkeypatch.setattr(module, "check_settings", lambda: None)

    def open(self, backend: object, models: Sequence[Model], arguments: Sequence[str], **options: Any) -> None:
        self.opened.append(([model.name for model in models], list(arguments), options))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


def test_web_ui_gets_the_load_without_a_window(page: Page) -> None:
    lab = FakeLab("prefork", "plain_socket")
    assert invoke(load.load, lab, "--users", "5", "--workers", "3", "--transport", "tls").exit_code == 0
    ((models, arguments, options),) = page.opened
    assert (models, options["workers"]) == (["plain_socket", "prefork"], 3)
    text = " ".join(arguments)
    assert text.startswith("--models plain_socket prefork --users 10 --spawn-rate 1000 --workload session ")
    assert "--transport tls" in text
    # It runs until somebody stops it.
    assert "--window" not in text


@pytest.mark.parametrize("words", ["--headless", "--json", "--fail-if rate<1", "--out {folder}"])
def test_load_with_a_result_has_no_web_ui(loading: Loading, page: Page, tmp_path: Path, words: str) -> None:
    done = invoke(load.load, FakeLab("prefork"), *words.format(folder=tmp_path).split(), "--workers", "2")
    assert done.exit_code == 0, done.output
    assert [name for name, *_ in loading.asked] == ["prefork"]
    assert page.opened == []
    # Its files say what was not the preset's.
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert ("closed_session-prefork-2workers.json" in names) == ("--out" in words)


def test_lab_in_which_something_runs_is_not_started_by_a_load(loading: Loading) -> None:
    """`down` would take all of it down."""
    lab = FakeLab()
    lab.others = GALLERY
    done = invoke(load.load, lab, "--headless", "--up")
    assert str(done.exception) == "no model is running; start them with: lab up"
    done = invoke(load.load, lab, "--headless", "--up", "prefork")
    assert str(done.exception) == "not running: prefork; start with: lab up prefork"
    lab.running = ["plain_socket"]
    done = invoke(load.load, lab, "--headless", "--up", "prefork", "plain_socket")
    assert str(done.exception) == "not running: prefork; start with: lab up prefork"
    assert lab.events == []


def test_load_without_a_terminal_does_not_ask_whether_to_start(loading: Loading) -> None:
    done = invoke(load.load, FakeLab(), "--headless", "prefork")
    assert str(done.exception) == "not running: prefork; start with: lab up prefork, or add --up"
    done = invoke(load.load, FakeLab(), "--headless")
    assert str(done.exception) == "no model is running; start with: lab up, or add --up"


def test_external_server_accepts_any_body_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Sequence[str], bool]] = []

    def open_target(targets: Sequence[str], *, any_body: bool) -> None:
        asked.append((targets, any_body))
        raise LabError("enough")

    monkeypatch.setattr(load, "ExternalServer", open_target)
    page = "http=http://h/page"
    for more in ([], ["--any-body"]):
        assert str(invoke(load.load, FakeLab(), "--target", page, *more).exception) == "enough"
    assert asked == [((page,), False), ((page,), True)]


@pytest.mark.parametrize("error", [None, LabError("no such page")])
def test_external_server_is_asked_before_it_is_loaded(
    loading: Loading, monkeypatch: pytest.MonkeyPatch, error: LabError | None
) -> None:
    asked: list[tuple[str, Transport]] = []

    def check(self: ExternalServer, workload: Workload, transport: Transport) -> None:
        asked.append((workload.name, transport))
        assert not loading.asked
        if error:
            raise error

    monkeypatch.setattr(ExternalServer, "check", check)
    done = invoke(load.load, FakeLab(), "--target", "command=tcp://127.0.0.1:1")
    assert asked == [("session", Transport.TCP)]
    assert (done.exception or done.exit_code) == (error or 0)
    assert len(loading.asked) == (0 if error else 1)


def test_codec_is_that_of_the_users_file(loading: Loading, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ExternalServer, "check", lambda *_: None)
    codec = tmp_path / "mine.py"
    codec.touch()
    words = ["--target", "tcp://127.0.0.1:1", "--codec", str(codec), "--users", "3"]
    done = invoke(load.load, FakeLab(), *words)
    assert done.exit_code == 0, done.output
    ((_, asked, found, _),) = loading.asked
    assert (asked.spec.workload, asked.spec.users, found) == (CUSTOM_PROTOCOL.name, 3, codec)
    for more in (["--preset", "closed_session"], ["--arrivals", "random"]):
        assert "a --codec has its own requests" in str(invoke(load.load, FakeLab(), *words, *more).exception)
    said = "--codec and --any-body go with a --target"
    assert said in str(invoke(load.load, FakeLab("prefork"), *words[2:4]).exception)
    up = invoke(load.load, FakeLab(), *words, "--up")
    assert str(up.exception) == "--up starts models of the catalogue; start the server of a --target yourself"


def test_page_injects_all_faults_and_only_into_the_models_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    readers: list[tuple[Any, ...]] = []
    monkeypatch.setattr(load, "serve_ui", lambda *given, **options: served.append((given, options)))
    monkeypatch.setattr(load, "FaultRequestReader", lambda *given: readers.append(given))
    lab = FakeLab("prefork", "plain_socket")
    more: Mapping[str, Any] = {"workers": 2, "worker_arguments": ["-f", "a.py"], "environ": {"X": "1"}}
    load.open_ui(lab, [CATALOGUE["prefork"]], ["--users", "2"], **more)
    ((given, options),) = served
    assert given == (lab, [CATALOGUE["prefork"]], ["--users", "2"])
    open_requests = options.pop("open_requests")
    assert options == {**more, "faults": list(FAULTS)}
    open_requests(["prefork"], "generator")
    ((backend, names, generator, _),) = readers
    assert (backend, names, generator) == (lab, ["prefork"], "generator")


GALLERY: Mapping[str, Literal["running", "exited"]] = {"gallery_ftp": "running", "gallery_web": "exited"}
STEPS = [Step("GET", "/ping", 9, 0, 0.9, 1.0, 2.0), Step("GET", "/burn", 3, 0, 0.3, 4.0, 5.0)]


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("command", [load_file.load_file, load_gallery.load_gallery])
def test_failed_step_does_not_hold(monkeypatch: pytest.MonkeyPatch, command: Any, failures: int, code: int) -> None:
    steps = [replace(STEPS[0], failures=failures), STEPS[1]]
    for module in (load_file, load_gallery):
        monkeypatch.setattr(module, "run_headless", lambda *given, **options: steps)
    words = ["plain_socket"] if command is load_file.load_file else ["ftp"]
    lab = FakeLab("plain_socket")
    lab.others = GALLERY
    done = invoke(command, lab, *words, "--json")
    assert done.exit_code == code
    assert [row["failures"] for row in json.loads(done.stdout)] == [failures, 0]


def test_run_without_a_request_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_file, "run_headless", lambda *given, **options: [])
    monkeypatch.setattr(load_gallery, "run_headless", lambda *given, **options: [])
    done = invoke(load_file.load_file, FakeLab("plain_socket"), "plain_socket", "--headless")
    assert isinstance(done.exception, LabError)
    assert "no request was sent in 10 s" in str(done.exception)
    lab = FakeLab()
    lab.others = GALLERY
    assert invoke(load_gallery.load_gallery, lab, "ftp", "--headless").exit_code == 1


GUARDED = "-f loadtests/guardfile.py,loadtests/"
HTTP_FILES = f"{GUARDED}httpfile.py"


def note_runs(monkeypatch: pytest.MonkeyPatch, command: ModuleType) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Run nothing; return the list that gets the arguments of each headless run."""
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def run(*places: Any, **options: Any) -> list[Step]:
        given.append((places, options))
        return STEPS

    monkeypatch.setattr(command, "run_headless", run)
    return given


@pytest.mark.parametrize(
    ("words", "files", "chosen", "users", "seconds", "workers"),
    [
        ("plain_socket", HTTP_FILES, "--host http://plain_socket:8080", 10, 10.0, 0),
        # Its replies are static.
        (
            "peer_nginx",
            f"{HTTP_FILES} {' '.join(choose_tags(CATALOGUE['peer_nginx']))}",
            "--host http://peer_nginx:8080",
            10,
            10.0,
            0,
        ),
        (
            "plain_socket --user GeventUser --users 3 --duration 2s --workers 4",
            HTTP_FILES,
            "--host http://plain_socket:8080 GeventUser",
            3,
            2.0,
            4,
        ),
    ],
)
def test_file_is_run_against_the_model(
    monkeypatch: pytest.MonkeyPatch,
    page: Page,
    words: str,
    files: str,
    chosen: str,
    users: int,
    seconds: float,
    workers: int,
) -> None:
    given = note_runs(monkeypatch, load_file)
    lab = FakeLab("plain_socket", "peer_nginx")
    assert invoke(load_file.load_file, lab, *words.split(), "--headless").exit_code == 0
    assert given == [((lab, files.split(), chosen.split(), users, seconds), {"workers": workers, "environ": {}})]
    assert invoke(load_file.load_file, lab, *words.split()).exit_code == 0
    picker = "" if "--user " in words else " --class-picker"
    ((_, arguments, options),) = page.opened
    assert arguments == f"{files} {chosen}{picker} --users {users} --spawn-rate {users}".split()
    # Each worker reads the locustfiles itself.
    assert (options["workers"], options["worker_arguments"]) == (workers, files.split())


def test_locustfile_of_the_user_is_mounted_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, page: Page, tmp_path: Path
) -> None:
    given = note_runs(monkeypatch, load_file)
    lab = FakeLab("plain_socket")
    lab.name = "docker"
    tmp_path.chmod(0o755)
    (tmp_path / "mine.py").touch(0o644)
    words = ["plain_socket", "--file", str(tmp_path / "mine.py")]
    files = ["-f", "loadtests/guardfile.py,/locustfiles/mine.py"]
    environ = {ENV_LOCUSTFILES: str(tmp_path)}
    assert invoke(load_file.load_file, lab, *words, "--headless").exit_code == 0
    ((places, options),) = given
    assert (places[1], options) == (files, {"workers": 0, "environ": environ})
    assert invoke(load_file.load_file, lab, *words).exit_code == 0
    ((models, arguments, more),) = page.opened
    assert (models, arguments[:2]) == (["plain_socket"], files)
    assert (more["worker_arguments"], more["environ"]) == (files, environ)


def test_gallery_is_run_with_the_users_whose_servers_run(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    given = note_runs(monkeypatch, load_gallery)
    lab = FakeLab()
    lab.others = GALLERY
    words = ["--headless", "--users", "7", "--duration", "3s"]
    assert invoke(load_gallery.load_gallery, lab, *words).exit_code == 0
    assert given == [((lab, f"{GUARDED}galleryfile.py".split(), ["FtpUser"], 7, 3.0), {})]
    assert invoke(load_gallery.load_gallery, lab).exit_code == 0
    assert page.opened[0][1][-5:] == ["--class-picker", "--users", "12", "--spawn-rate", "12"]


def test_steps_are_shown_by_protocol_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("smtp", "send", 5, 1, 0.5, 12.345, 67.89), Step("ftp", "list", 3, 0, 0.25, None, None)]
    load_gallery.show(steps, as_json=False)
    assert capsys.readouterr().out == "ftp\tlist\t3\t0\t0.25\t\t\nsmtp\tsend\t5\t1\t0.5\t12.3\t67.9\n"


def test_page_offers_running_models_unless_a_kind_is_named(page: Page) -> None:
    lab = FakeLab("plain_socket")
    lab.others = GALLERY
    for words in ([], ["ftp"]):
        assert invoke(load_gallery.load_gallery, lab, *words).exit_code == 0
    rest = "--class-picker --users 12 --spawn-rate 12"
    assert [(models, " ".join(arguments)) for models, arguments, *_ in page.opened] == [
        (["plain_socket"], f"-f loadtests/locustfile.py,loadtests/galleryfile.py {rest}"),
        ([], f"{GUARDED}galleryfile.py FtpUser {rest}"),
    ]


def test_headless_run_is_that_long_and_prints_each_failure(capsys: pytest.CaptureFixture[str]) -> None:
    lab = FakeLab()
    entry = {"method": "GET", "name": "/ping", "num_requests": 8, "num_failures": 2, "response_times": {"5": 8}}
    said = encode(LoadFailure("GET /ping: reset (2 times)"))
    lab.printed = Completed([], 1, json.dumps([entry]), f"{said}\n")
    # 8 requests in 4 s.
    assert run_headless(lab, ["-f", "a.py"], ["Mine"], 3, 4.0, environ={"X": "1"}) == [
        Step("GET", "/ping", 8, 2, 2.0, 5.0, 5.0)
    ]
    ((service, arguments, options),) = lab.served
    assert (service, " ".join(arguments)) == (
        "locust",
        "-f a.py Mine --headless --json --users 3 --spawn-rate 3 --run-time 4s --stop-timeout 15 --loglevel ERROR",
    )
    assert options == {"environ": {"LAB_LIFELINE": "stdin", "X": "1"}, "capture": True, "timeout": 64.0}
    assert capsys.readouterr().err == "lab: GET /ping: reset (2 times)\n"


def test_headless_run_has_its_workers_which_get_the_locustfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[tuple[object, ...], Mapping[str, Any]]] = []

    def run(*places: object, **options: Any) -> Completed:
        given.append((places, options))
        return Completed([], 0, "[]", "")

    monkeypatch.setattr(locustfiles, "run_generator", run)
    lab = FakeLab()
    assert run_headless(lab, ["-f", "a.py"], ["--host", "h"], 3, 4.0, workers=2, environ={"X": "1"}) == []
    ((places, options),) = given
    assert places[0] == lab
    # The classes of users are the master's; 60 s are for starting and ending.
    assert options == {"workers": 2, "environ": {"X": "1"}, "timeout": 64.0, "worker_arguments": ["-f", "a.py"]}


def test_generator_of_the_web_ui_gets_its_addresses_and_what_it_may_ask_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = FakeLab("plain_socket", "prefork")
    opened: list[tuple[Sequence[str], Mapping[str, Any]]] = []
    telemetry: list[Sequence[str]] = []
    advanced: list[bool] = []
    process = SimpleNamespace(wait=lambda seconds: 0)
    generator = SimpleNamespace(main=SimpleNamespace(process=process), wait=lambda meanwhile: meanwhile() or 0)
    requests: Any = SimpleNamespace(advance=lambda *, inject=True: advanced.append(inject))

    @contextmanager
    def open_generator(helpers: object, arguments: Sequence[str], **options: Any) -> Any:
        opened.append((arguments, options))
        yield generator

    @contextmanager
    def send(servers: object, names: Sequence[str], helper: object) -> Any:
        telemetry.append(names)
        yield

    monkeypatch.setattr(web_ui, "open_generator", open_generator)
    monkeypatch.setattr(web_ui, "send_telemetry", send)
    monkeypatch.setattr(web_ui, "read_ui_port", lambda: 4)
    monkeypatch.setenv(ENV_UI_LOGIN, "me:secret")
    monkeypatch.setenv(ENV_UI_ORIGINS, "https://proxy.example")
    monkeypatch.setenv(ENV_UI_BASE_PATH, "/load")
    web_ui.serve_ui(
        lab,
        [CATALOGUE["prefork"]],
        ["--users", "2"],
        faults=["kill", "pause"],
        open_requests=lambda names, helper: requests,
        workers=2,
        worker_arguments=["-f", "mine.py"],
        environ={"X": "1"},
    )
    ((arguments, options),) = opened
    assert (
        " ".join(arguments)
        == "--web-host 127.0.0.1 --web-port 8093 --users 2 --loglevel WARNING --web-login --web-base-path /load"
    )
    shown = [item for item in lab.targets() if item.model == "prefork"]
    assert options == {
        "workers": 2,
        "environ": {ENV_TARGETS: encode_targets(shown), "X": "1"},
        # Not for workers: only the process with the form may ask, and knows the login.
        "own": {ENV_TELEMETRY: "stdin", ENV_FAULTS: "kill,pause"}
        | {ENV_UI_LOGIN: "me:secret", ENV_UI_ORIGINS: "https://proxy.example"},
        "publish": True,
        "worker_arguments": ["-f", "mine.py"],
    }
    assert telemetry == [["prefork"]]
    # While it runs, requests are served; what comes after its end is not.
    assert advanced == [True, False]
    # The port on this machine, not the one in its container.
    assert capsys.readouterr().out.startswith("Locust's web UI with 2 workers: http://127.0.0.1:4/load  (")


def test_port_of_the_web_ui_is_free_if_it_is_so_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI listens nowhere else."""
    with ExitStack() as stack:
        # Free at both addresses, while it is chosen.
        with socket.create_server(("127.0.0.1", 0)) as here:
            port = here.getsockname()[1]
            stack.enter_context(socket.create_server(("127.0.0.2", port)))
        monkeypatch.setenv(ENV_UI_PORT, str(port))
        assert web_ui.read_ui_port() == port
        said = rf"^port {port} is not available \(.*\): set LAB_UI_PORT to another port$"
        with socket.create_server(("127.0.0.1", port)), pytest.raises(LabError, match=said):
            web_ui.read_ui_port()


def serve_ui(monkeypatch: pytest.MonkeyPatch, wait: Callable[..., int]) -> list[bool]:
    """Run the web UI with a generator that ends as `wait` does; return how the requests for faults were advanced."""
    advanced: list[bool] = []
    process = SimpleNamespace(wait=lambda seconds: 0)
    generator = SimpleNamespace(main=SimpleNamespace(process=process), wait=wait)
    requests: Any = SimpleNamespace(advance=lambda *, inject=True: advanced.append(inject))
    monkeypatch.setattr(web_ui, "open_generator", lambda *_, **__: nullcontext(generator))
    monkeypatch.setattr(web_ui, "send_telemetry", lambda *_: nullcontext())
    monkeypatch.setattr(web_ui, "read_ui_port", lambda: 4)
    monkeypatch.delenv(ENV_UI_LOGIN, raising=False)
    web_ui.serve_ui(
        FakeLab("prefork"), [CATALOGUE["prefork"]], [], faults=[], open_requests=lambda names, helper: requests
    )
    return advanced


@pytest.mark.parametrize("code", [0, 1, 130, -2])
def test_web_ui_that_a_user_ends_is_no_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It exits with 1 after failed requests, else as an interrupted process."""
    assert serve_ui(monkeypatch, lambda meanwhile: code) == [False]


@pytest.mark.parametrize("code", [2, 3, 129, 137, -1, -9, -15])
def test_web_ui_that_ends_by_itself_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with pytest.raises(LabError, match=rf"^the web UI ended with exit code {code}$"):
        serve_ui(monkeypatch, lambda meanwhile: code)


def test_ctrl_c_ends_the_web_ui(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(meanwhile: object) -> int:
        raise KeyboardInterrupt

    serve_ui(monkeypatch, interrupt)
    assert capsys.readouterr().out.endswith("\nended\n")


OFFERED = ["command=tls://h:1", "command=unix:///a", "echo=tcp://h:2"]


@pytest.mark.parametrize(
    ("targets", "preset", "given", "chosen"),
    [
        (OFFERED, "closed_session", None, Transport.TLS),  # the first, as the preset's own is not among them
        (OFFERED[::-1], "closed_session", None, Transport.UNIX),
        (OFFERED, "closed_session", Transport.UDP, Transport.UDP),
        (OFFERED, "closed_echo_1k", None, None),  # the preset's
        ([], "closed_session", None, None),
        ([], "closed_session", Transport.UDP, Transport.UDP),
    ],
)
def test_transport_is_the_users_or_one_that_the_target_has(
    targets: list[str], preset: str, given: Transport | None, chosen: Transport | None
) -> None:
    target = ExternalServer(targets, any_body=False) if targets else None
    assert load.choose_transport(target, find_preset(preset), given) == chosen


@pytest.mark.parametrize(
    ("target", "preset", "said"),
    [
        ("echo=tcp://h:2", "closed_session", "the target speaks echo, and closed_session asks command: choose another"),
        ("tcp://h:2", "closed_session", "a --target without a service needs a --codec that knows its protocol"),
    ],
)
def test_target_that_does_not_speak_the_service_is_refused(target: str, preset: str, said: str) -> None:
    with pytest.raises(LabError, match=f"^{said}"):
        load.choose_transport(ExternalServer([target], any_body=False), find_preset(preset), None)


@pytest.mark.parametrize(
    ("is_read", "is_shown", "answer", "events"),
    [
        (True, True, True, ["up prefork", "down"]),
        (True, True, False, []),
        # Nobody would see the question, or could answer it.
        (True, False, True, []),
        (False, True, True, []),
    ],
)
def test_models_are_started_if_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, is_read: bool, is_shown: bool, answer: bool, events: list[str]
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def confirm(text: str, **options: Any) -> bool:
        asked.append((text, options))
        return answer

    fakes = SimpleNamespace(
        stdin=SimpleNamespace(isatty=lambda: is_read), stderr=SimpleNamespace(isatty=lambda: is_shown)
    )
    monkeypatch.setattr(load, "sys", fakes)
    monkeypatch.setattr(click, "confirm", confirm)
    lab = FakeLab()
    opened: Any = SimpleNamespace(backend=lab, catalogue=CATALOGUE)
    said = r"^not running: prefork; start with: lab up prefork"
    outcome = nullcontext() if events else pytest.raises(LabError, match=said)
    with outcome, load.running(opened, ["prefork"], start=False) as models:
        assert ([model.name for model in models], lab.events) == (["prefork"], ["up prefork"])
    assert lab.events == events
    question = ("not running: prefork. Start 1 model for this load?", {"default": True, "err": True})
    assert asked == [question] * (is_read and is_shown)


@pytest.mark.parametrize("command", [load.load, load_file.load_file], ids=["load", "load-file"])
def test_settings_of_the_web_ui_are_checked_before_it_opens(
    monkeypatch: pytest.MonkeyPatch, page: Page, loading: Loading, command: Any
) -> None:
    """And only then: a load without it needs no login."""

    def refuse() -> None:
        raise LabError("a login without a password")

    for module in (load, load_file):
        monkeypatch.setattr(module, "check_settings", refuse)
    note_runs(monkeypatch, load_file)
    assert str(invoke(command, FakeLab("prefork"), "prefork").exception) == "a login without a password"
    assert page.opened == []
    assert invoke(command, FakeLab("prefork"), "prefork", "--headless").exit_code == 0
