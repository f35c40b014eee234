"""Compose files: each is read as by Compose itself, or refused with its line. Nothing is ignored silently."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.base.paths import ROOT
from lab.engine.client import make_environ
from lab.servers.catalogue import Catalogue
from lab.servers.compose_file import OVERRIDE_NAMES, CatalogueError, interpolate, read_services
from lab.servers.open import open_backend

Lab = Callable[..., "CompletedProcess[str]"]

BASE = """\
services:
  mine:
    image: example/mine
    environment: {A: "1", B: two}
    entrypoint: [a, b]
    build: {context: /nonexistent, args: {X: "1"}}
    labels: {lab.model: mine, lab.family: thread, lab.summary: s, lab.limit.overlap: one}
"""


@dataclass(frozen=True)
class Case:
    """The files of a case. `refused`: the end of the error message, after file and line."""

    base: str = BASE
    override: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


def label(text: str, **environ: str) -> Case:
    return Case(BASE.replace("lab.summary: s", f"lab.summary: {text}"), environ=environ)


def override(text: str, refused: str = "") -> Case:
    return Case(override=f"services:\n  mine:\n    {text}\n", refused=refused)


CASES: dict[str, Case] = {
    "plain": Case(),
    # Variables.
    "default": label('"${V:-x}"'),
    "default of empty": label('"${V:-x}"', V=""),
    "default of set": label('"${V:-x}"', V="v"),
    "dash": label('"${V-x}"'),
    "dash of empty": label('"a${V-x}"', V=""),
    "plus": label('"a${V:+x}"'),
    "plus of empty": label('"a${V:+x}"', V=""),
    "plus of set": label('"a${V:+x}"', V="v"),
    "plus alone of empty": label('"a${V+x}"', V=""),
    "question of set": label('"${V:?no}"', V="v"),
    "question alone of empty": label('"a${V?no}"', V=""),
    "plus of another variable": label('"a${V:+${W}}"', V="v", W="w"),
    "nested": label('"${V:-${W:-x}}"'),
    "nested of set": label('"${V:-${W:-x}}"', W="w"),
    "two": label('"${V}-$W."', V="v", W="w"),
    "unset": label('"a${V}b$W"'),
    "dollars": label('"$$V $${V} $$$$"', V="v"),
    "unquoted": Case(BASE.replace('{A: "1", B: two}', "\n      A: ${V:-x}\n      B: a $V b")),
    "a colon in a default": label('"${V:-tcp://h:1}"'),
    "an empty default": label('"a${V:-}"'),
    "a value with dollars": label('"$V"', V="$W ${W}"),
    "in an environment": Case(BASE.replace("B: two", 'B: "${V:-7}"')),
    "in a list": Case(BASE.replace('{A: "1", B: two}', '["A=${V:-8}", B=two]')),
    "in an image": Case(BASE.replace("example/mine", "example/mine:${V:-latest}")),
    "in an entrypoint": Case(BASE.replace("[a, b]", '["${V:-a}", b]')),
    "in a build": Case(BASE.replace('{X: "1"}', '{X: "${V:-9}"}')),
    "question": Case(label('"${V:?no value}"').base, refused="7: V has to be set: no value"),
    "question of empty": Case(label('"${V:?}"').base, environ={"V": ""}, refused="7: V has to be set: it has no value"),
    "a dollar alone": Case(
        label('"5 $ more"').base, refused="7: '$ more' is not a variable: write a dollar sign as $$"
    ),
    "no closing brace": Case(label('"${V"').base, refused="7: '${V' has no closing brace"),
    "no name": Case(label('"${1}"').base, refused="7: '${1}' is not a variable"),
    "a default of two lines": Case(label('"${V:-a\\nb}"').base, refused=r"7: '${V:-a\nb}' is not a variable"),
    "another form": Case(label('"${V/a/b}"').base, refused="7: '${V/a/b}' is not a variable"),
    "Compose's own": Case(label('"${COMPOSE_PROJECT_NAME}"').base, refused="7: COMPOSE_PROJECT_NAME is a setting of"),
    "elsewhere": Case(f"x-y: '${{}}'\n{BASE}", refused="1: '${}' is not a variable"),
    # What a value is.
    "yes is a text": label("yes"),
    "on is a text": label("on"),
    "true": label("true"),
    "a number": label("10"),
    "a float": label("1.50"),
    "sixty": label("22:22"),
    "sixty, and a fraction": label("22:22.5"),
    "zero as a float": label("0.0"),
    "octal": label("010"),
    "hexadecimal": label("0x10"),
    "a date": Case(label("2026-01-02").base, refused="7: put 2026-01-02 in quotes"),
    "a large float": Case(label("1234567.5").base, refused="7: put 1234567.5 in quotes"),
    "a small float": label("0.0001"),
    "a quoted number": label('"010"'),
    "true in an environment": Case(BASE.replace("B: two", "B: true, C: 010, D: off, E: 1.0")),
    "no value": Case(BASE.replace("B: two", "B: , C: ''")),
    "no value in a list": Case(BASE.replace('{A: "1", B: two}', "[A, B=, C=c=d]")),
    "an entrypoint as a text": Case(BASE.replace("[a, b]", "a 'b c' \"d\"")),
    "labels as a list": Case(
        f"{BASE.partition('labels')[0]}labels: [lab.model=mine, lab.family=thread, lab.summary=s, lab.x]\n"
    ),
    "arguments as a list": Case(BASE.replace('{X: "1"}', "[X=1, Y=2]")),
    # Anchors and merge keys.
    "an anchor": Case(f"x-a: &a {{A: '5', C: c}}\n{BASE.replace('A: ', '<<: *a, A: ')}"),
    "two anchors": Case(f"x-a: &a {{C: a, D: a}}\nx-b: &b {{C: b, E: b}}\n{BASE.replace('A: ', '<<: [*a, *b], A: ')}"),
    "an anchor of an anchor": Case(f"x-a: &a {{C: a}}\nx-b: &b {{<<: *a, D: b}}\n{BASE.replace('A: ', '<<: *b, A: ')}"),
    "a shared mapping is not changed": Case(
        BASE.replace("environment: {", "environment: &e {") + "  other: {image: x, environment: *e}\n",
        override="services: {other: {environment: {A: other}}}\n",
    ),
    "an alias of itself": Case("x-a: &a {b: *a}\n" + BASE, refused="1: an anchor contains an alias of itself"),
    "an alias of itself to merge": Case("x-a: &a {<<: *a}\n" + BASE, refused="1: an anchor contains an alias of"),
    "a key twice": Case(BASE + "    image: other\n", refused="8: image is here a second time; the first is in line 3"),
    # Overrides.
    "a label more": override("labels: {lab.cores: all, lab.summary: t}"),
    "labels in the other form": override("labels: [lab.cores=all, lab.summary=t]"),
    "an environment in the other form": override("environment: [A=3, C=c]"),
    "arguments in the other form": override("build: {args: [X=3, Y=y]}"),
    "another entrypoint": override("entrypoint: [c]"),
    "a profile": override("profiles: [p]"),
    "a build as a text": override("build: /other"),
    "another service": Case(override="services: {other: {image: x}}\n"),
    "nothing": Case(override="services:\n", refused="1: services is nothing, not a mapping"),
    "reset of a key": override("environment: !reset null"),
    "reset of a label": override("labels: {lab.limit.overlap: !reset null}"),
    "reset of one variable": override("environment: {A: !reset null, C: c}"),
    "reset of an entrypoint": override("entrypoint: !reset []"),
    "reset in the first file": Case(BASE.replace('{A: "1", B: two}', "!reset {A: '1'}")),
    "reset of a service": Case(BASE + "  other: {image: x}\n", override="services: {other: !reset null}\n"),
    "override of all services": Case(override="services: !override\n  mine: {image: x}\n"),
    "override of a mapping": override("environment: !override {C: c}"),
    "override of labels": override("labels: !override {lab.model: mine, lab.family: f, lab.summary: t}"),
    "override of labels in the other form": override("labels: !override [lab.model=mine, lab.x]"),
    "override of one label": override("labels: {lab.summary: !override t}"),
    "override of one variable in the first file": Case(BASE.replace("B: two", "B: !override 2, C: !reset null")),
    "override of a service": Case(override="services: {mine: !override {image: x, labels: [lab.x=y]}}\n"),
    "override inside a new service": Case(override="services: {other: {image: x, entrypoint: !override [a]}}\n"),
    "override of a list": override("entrypoint: !override [c]"),
    "override of a build": override("build: !override {context: /other}"),
    "an unknown tag": override(
        "image: !replace x", refused="3: unknown tag !replace: Compose has !reset and !override"
    ),
    "a tag in a list": override("entrypoint: [a, !reset b]", refused="3: !reset stands before an item of a list"),
    "a list as a key": Case(f"x-a: {{[a]: b}}\n{BASE}", refused="1: a key is a list, not a text"),
    "a text to merge": Case(BASE.replace('A: "1"', "<<: x, A: a"), refused="4: << takes a mapping, or a list of"),
    "labels of two kinds": override("labels: [a=b, {c: d}]", refused="3: labels of mine is neither a mapping nor"),
    "a million as a float": Case(label("1000000.0").base, refused="7: put 1000000.0 in quotes"),
    # What is not read.
    "reset of all services": Case(override="services: !reset null\n", refused="1: !reset of services leaves none"),
    "include": Case(f"include: [other.yaml]\n{BASE}", refused="1: the lab does not read include"),
    "include in an override": Case(override="include:\n  - other.yaml\n", refused="1: the lab does not read include"),
    "extends": override("extends: {service: other}", refused="3: the lab does not read extends"),
    "two documents": Case(f"{BASE}---\n{BASE}", refused="8: not valid YAML: but found another document"),
    "labels of labels": override("labels: {lab.x: {a: b}}", refused="3: label lab.x of mine is a mapping, not a text"),
    "labels of labels in an override": override(
        "labels: !override {lab.x: {a: b}}", refused="3: label lab.x of mine is a mapping, not a text"
    ),
    "a list in an environment": override(
        "environment: {A: [b]}", refused="3: environment A of mine is a list, not a text"
    ),
}


def write(folder: Path, case: Case) -> tuple[Path, ...]:
    files = [folder / "compose.yaml"]
    files[0].write_text(case.base)
    if case.override:
        files.append(folder / "compose.override.yaml")
        files[1].write_text(case.override)
    return tuple(files)


def ours(files: tuple[Path, ...], environ: Mapping[str, str]) -> dict[str, Any]:
    return {name: show(service) for name, service in read_services(files, environ).items()}


def show(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a service that the lab reads, in a common form."""
    build = service.get("build") or {}
    environment = {name: value for name, value in (service.get("environment") or {}).items() if value is not None}
    return {
        "image": service.get("image"),
        "labels": service.get("labels") or {},
        "environment": environment,
        "entrypoint": service.get("entrypoint") or [],
        "profiles": service.get("profiles") or [],
        "context": build.get("context"),
        "args": build.get("args") or {},
    }


# What `docker compose config` says of each file that is read; `python -m tests.lab.servers.test_compose_file` writes it
# again.
RECORDED = Path(__file__).with_name("compose.json")
READ = [name for name, case in CASES.items() if not case.refused]


def ask_compose(folder: Path, case: Case) -> dict[str, Any]:
    files = write(folder, case)
    command = ["docker", "compose", "--env-file", os.devnull, "--project-name", "p", "--profile", "*"]
    command += [f"--file={file}" for file in files] + ["config", "--format", "json"]
    environ = {**make_environ(), **case.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.replace("$$", "$"))["services"]
    return {name: show(service) for name, service in theirs.items()}


@pytest.mark.parametrize("name", READ)
def test_files_are_read_as_compose_reads_them(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    assert ours(write(tmp_path, case), case.environ) == json.loads(RECORDED.read_text())[name]


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", READ)
def test_recorded_cases_match_compose(tmp_path: Path, name: str) -> None:
    assert ask_compose(tmp_path, CASES[name]) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
@pytest.mark.parametrize("backend", ["docker", "process"])
def test_unsupported_file_is_refused_with_its_line(tmp_path: Path, name: str, backend: str) -> None:
    case = CASES[name]
    files = write(tmp_path, case)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in case.environ.items():
            patch.setenv(variable, value)
        with pytest.raises(CatalogueError) as caught:
            open_backend(backend, "p", catalogue=Catalogue.load(files[0]))
    assert str(caught.value).startswith(f"{files[-1]}:{case.refused}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OVERRIDE_NAMES)
def test_override_has_any_of_composes_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(BASE)
    (tmp_path / name).write_text("services: {mine: {labels: {lab.summary: another}}}\n")
    catalogue = Catalogue.load(path)
    assert catalogue.files == (path, tmp_path / name)
    assert catalogue["mine"].summary == "another"


def test_override_by_itself_is_a_file_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / OVERRIDE_NAMES[0]
    path.write_text(BASE)
    assert Catalogue.load(path).files == (path,)


def test_where_the_engine_is_may_be_asked(tmp_path: Path) -> None:
    """The lab passes it on."""
    path = tmp_path / "compose.yaml"
    path.write_text("services: {a: {user: '${DOCKER_HOST}'}}\n")
    assert read_services([path], {"DOCKER_HOST": "unix:///d.sock"})["a"]["user"] == "unix:///d.sock"


def test_second_override_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(BASE)
    for name in OVERRIDE_NAMES[:2]:
        (tmp_path / name).write_text("services: {}\n")
    with pytest.raises(CatalogueError, match=r"and not compose\.override\.yaml: keep one of them$"):
        Catalogue.load(tmp_path / "compose.yaml")
    (tmp_path / OVERRIDE_NAMES[2]).write_text("services: {}\n")
    with pytest.raises(CatalogueError) as raised:
        Catalogue.load(tmp_path / "compose.yaml")
    assert str(raised.value) == (
        f"{tmp_path}/compose.override.yaml:1: Compose reads only compose.override.yml and not compose.override.yaml"
        " and docker-compose.override.yml: keep one of them"
    )


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_bytes(b"services: \xff")
    with pytest.raises(CatalogueError, match=rf"^{tmp_path}/compose\.yaml: cannot be read: 'utf-8' codec"):
        Catalogue.load(tmp_path / "compose.yaml")


def test_plain_words_are_truth_values_and_quoted_ones_text(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {a: {init: true, tty: FALSE, user: 'true', hostname: false_, domainname: !!str true}}\n")
    assert read_services([path], {})["a"] == {
        "init": True,
        "tty": False,
        "user": "true",
        "hostname": "false_",
        "domainname": "true",
        "labels": {},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # The key is meant, though the value begins on the next line.
        ("services:\n  a:\n    labels:\n      x:\n        y: z\n", "4: label x of a is a mapping, not a text"),
        (
            "services:\n  a:\n    labels: !override\n      x:\n        y: z\n",
            "4: label x of a is a mapping, not a text",
        ),
        (
            "services:\n  a:\n    user:\n      b\n    user: c\n",
            "5: user is here a second time; the first is in line 3",
        ),
    ],
)
def test_refusal_names_the_line_of_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    with pytest.raises(CatalogueError) as raised:
        read_services([path], {})
    assert str(raised.value) == f"{path}:{said}"


def test_comment_of_an_env_file_may_be_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("V", raising=False)
    (tmp_path / "compose.yaml").write_text(BASE.replace("lab.summary: s", 'lab.summary: "${V:-s}"'))
    (tmp_path / ".env").write_bytes(b"# \xe9\nV=1\n")
    with pytest.raises(CatalogueError, match=rf"^{tmp_path}/\.env:2: the lab does not read \.env"):
        Catalogue.load(tmp_path / "compose.yaml")


@pytest.mark.parametrize(
    ("text", "environ", "line"),
    [
        ("# of ours\nV=x\n", {}, 2),
        ("export V=x\n", {}, 1),
        ("  V: x\n", {}, 1),
        ("V=x\n", {"V": "y"}, None),
        ("W=x\n", {}, None),
        ("#V=x\n", {}, None),
    ],
    ids=["set", "exported", "with a colon", "the environment has it", "another variable", "a comment"],
)
def test_variable_of_an_env_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, environ: dict[str, str], line: int | None
) -> None:
    """Only Compose would read it, so containers would differ from processes."""
    monkeypatch.delenv("V", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "compose.yaml").write_text(BASE.replace("lab.summary: s", 'lab.summary: "${V:-s}"'))
    (tmp_path / ".env").write_text(text)
    if line is None:
        assert Catalogue.load(tmp_path / "compose.yaml")["mine"].summary == environ.get("V", "s")
        return
    message = rf"^{tmp_path}/\.env:{line}: the lab does not read \.env, and compose\.yaml:7 asks for V: set it in"
    with pytest.raises(CatalogueError, match=message):
        Catalogue.load(tmp_path / "compose.yaml")


@pytest.mark.parametrize("backend", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_refusal_is_a_one_line_error_of_the_command(lab: Lab, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(BASE + "    extends: other\n")
    done = lab("--file", str(path), "--backend", backend, "--project", "p", "ls")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lab: {path}:8: the lab does not read extends: use an anchor, or <<\n"


def test_file_of_variables_is_refused_for_processes(lab: Lab, tmp_path: Path, process_project: str) -> None:
    path = tmp_path / "compose.yaml"
    text = (ROOT / "compose.yaml").read_text()
    path.write_text(text.replace("    image: socketlab/plain_socket\n", "    image: x\n    env_file: a.env\n"))
    line = path.read_text().splitlines().index("    env_file: a.env") + 1
    done = lab("--file", str(path), "--backend", "process", "--project", process_project, "up", "plain_socket")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lab: {path}:{line}: env_file of plain_socket is read only for containers")


def test_processes_get_the_values_of_variables(lab: Lab, tmp_path: Path, process_project: str) -> None:
    path = tmp_path / "compose.yaml"
    labels = "{lab.model: plain_socket, lab.family: f, lab.summary: s}"
    environment = '{LAB_IDLE_SECONDS: "${IDLE:-9}", LAB_BACKLOG: 12}'
    path.write_text(f"services: {{plain_socket: {{image: x, environment: {environment}, labels: {labels}}}}}\n")
    (tmp_path / "compose.override.yml").write_text(
        "services: {plain_socket: {environment: !override {LAB_BACKLOG: 13}}}\n"
    )
    options = ["--file", str(path), "--backend", "process", "--project", process_project]
    try:
        assert lab(*options, "up").returncode == 0
        said = lab(*options, "call", "plain_socket", "command", "INFO").stdout.splitlines()
        assert {"idle:300.0", "backlog:13"} <= set(said)
        (tmp_path / "compose.override.yml").unlink()
        assert lab(*options, "down").returncode == 0
        assert lab(*options, "up", environ={"IDLE": "8"}).returncode == 0
        said = lab(*options, "call", "plain_socket", "command", "INFO").stdout.splitlines()
        assert {"idle:8.0", "backlog:12"} <= set(said)
    finally:
        assert lab(*options, "down").returncode == 0


@given(st.text(alphabet="$${}V:-?+ x", max_size=12))
def test_interpolation_ends_in_a_text_or_a_refusal(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(interpolate(text, {"V": "v"}.get), str)


@given(st.text(max_size=20))
def test_doubled_dollar_sign_is_one_dollar_sign(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), lambda name: None) == text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        answers = {name: ask_compose(Path(folder), CASES[name]) for name in READ}
    RECORDED.write_text(json.dumps(answers, indent=1) + "\n")


def test_a_command_is_replaced_and_any_other_list_is_appended_to(tmp_path: Path) -> None:
    """As Compose does, without asking it."""
    base, other = tmp_path / "compose.yaml", tmp_path / "compose.override.yaml"
    lists = "{{command: [{0}], entrypoint: [{0}], tmpfs: [{0}, /both], healthcheck: {{test: [CMD, {0}]}}}}"
    base.write_text(f"services: {{mine: {lists.format('a')}}}\n")
    other.write_text(f"services: {{mine: {lists.format('b')}}}\n")
    assert read_services([base, other], {})["mine"] == {
        "command": ["b"],
        "entrypoint": ["b"],
        "healthcheck": {"test": ["CMD", "b"]},
        "tmpfs": ["a", "/both", "b"],
        "labels": {},
    }
