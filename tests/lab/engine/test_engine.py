"""`lab.engine`: what it reads, what it decides, what it removes. Nothing here installs, and nothing needs an engine."""

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.engine import EngineError, decide, probe, status
from lab.engine.apt import (
    BUILDX,
    COMPOSE,
    Release,
    Source,
    choose,
    parse_deb822,
    parse_one_line,
    read_candidates,
    read_release,
    read_sources,
    sources_of_release,
)
from lab.engine.base_image import add_files, clean_script, find_sources, mmdebstrap_argv
from lab.engine.command import run, run_or_raise, say, tail
from lab.engine.daemon import clear_stale, is_answering, is_dead_socket, is_stale, read_nofile_limit
from lab.engine.probe import read_status
from lab.engine.provide import check_able

ROOT = Path(__file__).parents[3]
MIRROR = "http://mirror.example/debian"
KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = f"""\
# Written by the installer.
Types: deb deb-src
URIs: {MIRROR}
# a comment between two fields
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: {KEY}

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: {MIRROR}-security
Suites: bookworm-security
Components: main
Signed-By: {KEY}

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = f"""\
deb [arch=amd64 signed-by={KEY}] {MIRROR} bookworm main contrib # ours
deb-src {MIRROR} bookworm main
deb {MIRROR} bookworm-updates main
#deb http://off.example/debian bookworm main
deb http://no-suite.example
deb [ trusted=yes ] file:/srv/packages ./
"""


class TestSources:
    def test_deb822_skips_disabled_sources_and_those_without_binaries(self) -> None:
        assert list(parse_deb822(DEB822)) == [
            Source((MIRROR,), ("bookworm", "bookworm-updates", "bookworm-backports"), ("main", "contrib"), KEY),
            Source((MIRROR + "-security",), ("bookworm-security",), ("main",), KEY),
        ]

    def test_one_line_format_skips_comments_and_deb_src(self) -> None:
        assert list(parse_one_line(ONE_LINE)) == [
            Source((MIRROR,), ("bookworm",), ("main", "contrib"), KEY),
            Source((MIRROR,), ("bookworm-updates",), ("main",)),
            Source(("file:/srv/packages",), ("./",), (), "", "yes"),
        ]

    def test_next_release_keeps_mirror_and_key_and_skips_other_repositories(self) -> None:
        foreign = Source(("http://other.example/apt",), ("stable",), ("main",))
        assert sources_of_release([*parse_deb822(DEB822), foreign], "bookworm", "trixie") == [
            Source((MIRROR,), ("trixie", "trixie-updates"), ("main",), KEY),
            Source((MIRROR + "-security",), ("trixie-security",), ("main",), KEY),
        ]

    def test_both_formats_give_the_same_next_release(self) -> None:
        from_lines = sources_of_release(parse_one_line(ONE_LINE), "bookworm", "trixie")
        assert from_lines == [
            Source((MIRROR,), ("trixie",), ("main",), KEY),
            Source((MIRROR,), ("trixie-updates",), ("main",)),
        ]

    def test_updates_alone_do_not_provide_a_release(self) -> None:
        assert sources_of_release([Source((MIRROR,), ("bookworm-updates",), ("main",))], "bookworm", "trixie") == []

    def test_key_written_out_in_the_file_survives_the_round_trip(self) -> None:
        key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGRz\n -----END PGP PUBLIC KEY BLOCK-----"
        [source] = parse_deb822(f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm\nComponents: main\nSigned-By:{key}\n")
        assert source.signed_by == key
        assert list(parse_deb822(source.stanza())) == [source]

    def test_files_are_read_in_both_formats_and_other_suffixes_are_not(self, tmp_path: Path) -> None:
        parts = tmp_path / "sources.list.d"
        parts.mkdir()
        (tmp_path / "sources.list").write_text(f"deb {MIRROR} bookworm main\n")
        (parts / "b.sources").write_text(DEB822)
        (parts / "a.list").write_text("deb http://a.example/apt stable main\n")
        (parts / "c.sources.disabled").write_text(DEB822.replace("bookworm", "disabled"))
        assert [source.suites[0] for source in read_sources(tmp_path)] == [
            "bookworm",
            "stable",
            "bookworm",
            "bookworm-security",
        ]

    def test_missing_sources_are_an_empty_list(self, tmp_path: Path) -> None:
        assert read_sources(tmp_path) == []

    def test_apt_itself_reads_a_derived_stanza(self, tmp_path: Path) -> None:
        if run(["apt-get", "--version"]).returncode:
            pytest.skip("no apt-get on this machine to read it")
        [first, _] = sources_of_release(parse_deb822(DEB822), "bookworm", "trixie")
        (tmp_path / "next.sources").write_text(first.stanza())
        options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={tmp_path}"]
        printed = run_or_raise(["apt-get", "update", "--print-uris", *options], fix="-")
        asked = [line.split("'")[1].split("/dists/") for line in printed.splitlines()]
        assert {(mirror, path.split("/")[0]) for mirror, path in asked} == {
            (MIRROR, "trixie"),
            (MIRROR, "trixie-updates"),
        }

    @pytest.mark.parametrize(
        ("text", "release"),
        [
            ('ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian = good"\n', Release("debian", "bookworm")),
            ('ID="ubuntu"\nVERSION_CODENAME=noble\n', Release("ubuntu", "noble")),
            ("ID=alpine\n", Release("alpine", "")),
        ],
        ids=["debian", "ubuntu-quoted", "no-codename"],
    )
    def test_release(self, tmp_path: Path, text: str, release: Release) -> None:
        (tmp_path / "os-release").write_text(text)
        assert read_release(tmp_path / "os-release") == release

    def test_release_of_a_system_without_the_file(self, tmp_path: Path) -> None:
        assert not read_release(tmp_path / "none").uses_apt


class TestChoice:
    POLICY = (
        "docker.io:\n  Installed: (none)\n  Candidate: 20.10.24\n  Version table:\n"
        "docker-compose:\n  Installed: (none)\n  Candidate: 1.29.2-3\n  Version table:\n"
        "docker-buildx:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"
    )

    def test_candidates(self) -> None:
        assert read_candidates(self.POLICY) == {"docker.io": "20.10.24", "docker-compose": "1.29.2-3"}

    @pytest.mark.parametrize(
        ("candidates", "compose"),
        [
            ({"docker-compose": "1.29.2-3"}, None),
            ({"docker-compose": "1:1.25.0-1"}, None),
            ({"docker-compose": "2.26.1-4"}, "docker-compose"),
            ({"docker-compose": "1.29.2-6", "docker-compose-v2": "2.24.6+ds1"}, "docker-compose-v2"),
            ({"docker-compose-v2": "2.24.6", "docker-compose-plugin": "2.30.0"}, "docker-compose-plugin"),
            ({}, None),
        ],
        ids=["debian-12", "epoch", "debian-13", "ubuntu", "docker's-own", "none"],
    )
    def test_compose_1_is_another_program(self, candidates: dict[str, str], compose: str | None) -> None:
        assert choose(COMPOSE, candidates) == compose

    def test_buildx(self) -> None:
        assert choose(BUILDX, {"docker-buildx": "0.13.1"}) == "docker-buildx"


class TestPolicy:
    @pytest.mark.parametrize(
        ("stdin", "stdout", "euid", "environ", "answer"),
        [
            (False, False, 0, {}, "install"),
            (True, False, 0, {}, "ask"),
            (False, True, 0, {}, "ask"),
            (True, True, 0, {}, "ask"),
            (False, False, 1000, {}, "ask"),
            (True, True, 1000, {"LAB_ENGINE": "install"}, "install"),
            (False, False, 0, {"LAB_ENGINE": "ask"}, "ask"),
            (False, False, 0, {"LAB_ENGINE": ""}, "install"),
        ],
        ids=["ci", "piped-out", "piped-in", "terminal", "not-root", "told-to", "told-not-to", "empty-says-nothing"],
    )
    def test_decide(self, stdin: bool, stdout: bool, euid: int, environ: dict[str, str], answer: str) -> None:
        assert decide(stdin_is_tty=stdin, stdout_is_tty=stdout, euid=euid, environ=environ) == answer


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is no dockerd."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        # Popen returns when the child's execve() has closed its descriptors, a moment before it has its new name.
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.001)
        yield process
        process.kill()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """An engine's /var/run, empty."""
    (tmp_path / "docker" / "containerd").mkdir(parents=True)
    (tmp_path / "containerd").mkdir()
    return tmp_path


class TestStale:
    def test_pid_of_the_program_is_alive(self, tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
        (tmp_path / "pid").write_text(f"{sleeper.pid}\n")
        assert not is_stale(tmp_path / "pid", "sleep")

    def test_pid_of_another_program(self, tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
        (tmp_path / "pid").write_text(str(sleeper.pid))
        assert is_stale(tmp_path / "pid", "dockerd")

    def test_pid_of_a_program_whose_name_is_cut_within_a_letter(self, tmp_path: Path) -> None:
        (tmp_path / "pid").write_text("7")
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "comm").write_bytes(b"docker\xd0\n")
        (tmp_path / "7" / "status").write_bytes(b"Name:\tdocker\xd0\nState:\tS (sleeping)\n")
        assert is_stale(tmp_path / "pid", "dockerd", proc=tmp_path)

    def test_ended_pid_is_not_alive(self, tmp_path: Path) -> None:
        with subprocess.Popen(["/bin/true"]) as process:
            process.wait()
        (tmp_path / "pid").write_text(str(process.pid))
        assert is_stale(tmp_path / "pid", "true")

    def test_zombie_is_not_alive(self, tmp_path: Path) -> None:
        process = subprocess.Popen(["/bin/sleep", "60"])
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and left unreaped
        (tmp_path / "pid").write_text(str(process.pid))
        try:
            assert is_stale(tmp_path / "pid", "sleep")
        finally:
            process.wait()

    @pytest.mark.parametrize("text", ["", "\n", "12a", "\0\0\0"])
    def test_torn_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "pid").write_text(text)
        assert is_stale(tmp_path / "pid", "dockerd")

    def test_no_file_is_not_stale(self, tmp_path: Path) -> None:
        assert not is_stale(tmp_path / "pid", "dockerd")

    def test_living_engine_keeps_all_of_its_files(self, run_dir: Path) -> None:
        """A /proc made by hand, since a real dockerd would be the one of this machine."""
        pid_files = [run_dir / "docker.pid", run_dir / "docker" / "containerd" / "containerd.pid"]
        for number, (pid_file, comm) in enumerate(zip(pid_files, ["dockerd", "containerd"], strict=True), start=1):
            process = run_dir / "proc" / str(number)
            process.mkdir(parents=True)
            (process / "comm").write_text(comm + "\n")
            (process / "status").write_text(f"Name:\t{comm}\nUmask:\t0022\nState:\tS (sleeping)\n")
            pid_file.write_text(str(number))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(run_dir / "containerd" / "containerd.sock"))
            listener.listen()
            assert clear_stale(run_dir, proc=run_dir / "proc") == []
        assert all(path.exists() for path in pid_files)

    def test_dead_engine_leaves_nothing_in_the_way(self, run_dir: Path, sleeper: subprocess.Popen[bytes]) -> None:
        managed = run_dir / "docker" / "containerd"
        left = [run_dir / "docker.pid", managed / "containerd.pid", run_dir / "containerd" / "containerd.sock"]
        left[0].write_text("4194304")  # above the largest pid_max: no process
        left[1].write_text(str(sleeper.pid))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(left[2]))
        assert clear_stale(run_dir) == left
        assert not any(path.exists() for path in left)
        assert clear_stale(run_dir) == []


class TestNofileLimit:
    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        """A /proc with one dockerd, number 7, that has every capability."""
        (tmp_path / "7").mkdir()
        (tmp_path / "pid").write_text("7\n")
        (tmp_path / "7" / "status").write_text("Name:\tdockerd\nCapEff:\t000001ffffffffff\n")
        (tmp_path / "7" / "limits").write_text(
            "Limit                     Soft Limit           Hard Limit           Units\n"
            "Max processes             30000                30000                processes\n"
            "Max open files            1024                 20000                files\n"
        )
        return tmp_path

    def test_engine_that_may_raise_its_limit_has_no_limit(self, proc: Path) -> None:
        assert read_nofile_limit(proc / "pid", proc=proc) is None

    def test_engine_without_sys_resource_gives_what_it_has(self, proc: Path) -> None:
        (proc / "7" / "status").write_bytes(b"Name:\tdocker\xd0\nCapEff:\t000001fffeffffff\n")
        assert read_nofile_limit(proc / "pid", proc=proc) == 20000
        limits = proc / "7" / "limits"
        limits.write_text(limits.read_text().replace("20000    ", "unlimited"))
        assert read_nofile_limit(proc / "pid", proc=proc) is None

    def test_engine_whose_capabilities_are_unknown_has_no_known_limit(self, proc: Path) -> None:
        (proc / "7" / "status").write_text("Name:\tdockerd\n")
        assert read_nofile_limit(proc / "pid", proc=proc) is None

    def test_invisible_engine_has_an_unknown_limit(self, tmp_path: Path) -> None:
        assert read_nofile_limit(tmp_path / "pid", proc=tmp_path) is None


class TestSockets:
    def test_socket_without_a_listener_is_dead(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            assert is_dead_socket(tmp_path / "s")
            listener.listen()
            assert not is_dead_socket(tmp_path / "s")
        assert is_dead_socket(tmp_path / "s")

    def test_socket_that_refuses_for_another_reason_is_left_alone(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(tmp_path / "s"))
            assert not is_dead_socket(tmp_path / "s")

    def test_path_that_is_not_a_socket_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert not is_dead_socket(tmp_path / "file")
        assert not is_dead_socket(tmp_path / "none")

    @pytest.mark.parametrize(
        ("reply", "answers"),
        [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 503 Unavailable\r\n\r\n", False), (b"", False)],
    )
    def test_ping(self, tmp_path: Path, reply: bytes, answers: bool) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "api"))
            listener.listen()

            def answer() -> None:
                link, _ = listener.accept()
                with link:
                    assert link.recv(64).startswith(b"GET /_ping ")
                    link.sendall(reply)

            server = threading.Thread(target=answer)
            server.start()
            assert is_answering(tmp_path / "api") == answers
            server.join()

    def test_ping_that_nobody_answers_has_an_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lab.engine.daemon._PING_SECONDS", 0.05)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "api"))
            listener.listen()
            assert not is_answering(tmp_path / "api")

    def test_ping_of_a_leftover_socket_fails(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "api"))
        assert not is_answering(tmp_path / "api")
        assert not is_answering(tmp_path / "none")


INFO = {
    "ServerVersion": "20.10.24",
    "Driver": "overlay2",
    "CgroupVersion": "1",
    "CgroupDriver": "cgroupfs",
    "ClientInfo": {
        "Version": "28.2.2",
        "Plugins": [{"Name": "buildx", "Version": "0.13.1"}, {"Name": "compose", "Version": "2.26.1-4"}],
    },
}


class TestStatus:
    def test_complete_machine_has_no_problems(self) -> None:
        known = read_status(0, json.dumps(INFO), "", "sha256:1\n")
        assert known.problems == ()
        assert known.is_complete
        assert (known.client_version, known.server_version) == ("28.2.2", "20.10.24")
        assert (known.compose_version, known.buildx_version) == ("2.26.1-4", "0.13.1")
        assert (known.storage_driver, known.cgroup_version, known.cgroup_driver) == ("overlay2", "1", "cgroupfs")
        assert known.base_image == "sha256:1"

    @pytest.mark.parametrize("image", ["", "\n"])  # of an image that it does not have, `docker image inspect` prints \n
    def test_complete_machine_may_lack_the_base_image(self, image: str) -> None:
        known = read_status(0, json.dumps(INFO), "", image)
        assert [problem.part for problem in known.problems] == ["base_image"]
        assert known.base_image is None
        assert known.is_complete

    @pytest.mark.parametrize("code", [0, 1])
    def test_figures_of_a_missing_engine_are_none(self, code: int) -> None:
        """The exit code is the client's: it may say that it could print, while no engine has answered."""
        away = {**INFO, "ServerVersion": "", "Driver": "", "ServerErrors": ["Cannot connect to the Docker daemon"]}
        known = read_status(code, json.dumps(away), "", "")
        assert not known.reachable
        assert known.problems[0].part == "engine"
        assert not known.is_complete
        assert (known.server_version, known.storage_driver, known.cgroup_version) == (None, None, None)
        assert known.problems[0].what == "Cannot connect to the Docker daemon"

    def test_empty_figures_are_none(self) -> None:
        empty = {**INFO, "Driver": "", "CgroupVersion": "", "CgroupDriver": ""}
        known = read_status(0, json.dumps(empty), "", "sha256:1")
        assert known.is_complete
        assert (known.storage_driver, known.cgroup_version, known.cgroup_driver) == (None, None, None)

    def test_compose_1_does_not_count(self) -> None:
        plugins = [{"Name": "compose", "Version": "v1.29.2"}, {"Name": "buildx", "Version": "0.13.1"}]
        known = read_status(0, json.dumps({**INFO, "ClientInfo": {"Plugins": plugins}}), "", "sha256:1")
        assert known.compose_version is None
        assert [problem.part for problem in known.problems] == ["compose"]

    def test_missing_client_is_reported(self) -> None:
        known = read_status(127, "", "docker: not found", "")
        assert [problem.part for problem in known.problems] == ["client", "engine", "compose", "buildx", "base_image"]

    @pytest.mark.parametrize(
        ("said", "host", "fix"),
        [
            ("permission denied while trying to connect", None, "group `docker`"),
            ("Cannot connect", "tcp://far.example:2375", "DOCKER_HOST=tcp://far.example:2375"),
            ("Cannot connect", None, "make engine"),
        ],
        ids=["not-allowed", "another-machine's", "none"],
    )
    def test_problem_has_its_own_fix(
        self, monkeypatch: pytest.MonkeyPatch, said: str, host: str | None, fix: str
    ) -> None:
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        if host:
            monkeypatch.setenv("DOCKER_HOST", host)
        known = read_status(1, json.dumps({"ServerErrors": [said]}), "", "")
        assert fix in known.problems[0].fix

    @pytest.mark.parametrize(
        ("info", "stderr", "what"),
        [
            ({"ServerErrors": ["it is away", "twice."]}, "not this", "it is away; twice"),
            ({"ServerErrors": None}, "  Unable to parse the config file\n", "Unable to parse the config file"),
            ({}, "", "no Docker engine answers"),
        ],
        ids=["server", "client", "nothing"],
    )
    def test_problem_quotes_the_server_or_else_the_client(self, info: object, stderr: str, what: str) -> None:
        (problem,) = [item for item in read_status(1, json.dumps(info), stderr, "").problems if item.part == "engine"]
        assert problem.what == what

    def test_first_line_of_the_client_says_what_is_wrong(self) -> None:
        said = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\nSee 'docker run'.\n"
        assert probe.explain_away(said).what == "Cannot connect to the Docker daemon at unix:///x"
        assert probe.explain_away("").what == "no Docker engine answers"

    def test_status_of_this_machine_names_its_problems(self) -> None:
        """Whatever runs here: a part is known or has a problem, and each problem a sentence that fixes it."""
        now = status()
        parts = {problem.part for problem in now.problems}
        assert now.reachable == ("engine" not in parts)
        assert (now.compose_version is None) == ("compose" in parts)
        assert (now.buildx_version is None) == ("buildx" in parts)
        assert (now.base_image is None) == ("base_image" in parts)
        assert all(problem.what and problem.fix for problem in now.problems)


class TestRefusals:
    """What cannot work is refused in one line, before anything is touched."""

    DEBIAN = Release("debian", "bookworm")

    @pytest.mark.parametrize(
        ("euid", "release", "host", "says"),
        [
            (1000, DEBIAN, "", "no engine, and installing it needs root: run `sudo make engine`"),
            (0, Release("alpine", ""), "", "neither Debian nor Ubuntu: provide Docker Engine"),
            (0, DEBIAN, "ssh://far.example", "DOCKER_HOST is ssh://far.example"),
        ],
        ids=["not-root", "not-debian", "another-machine's"],
    )
    def test_refused(self, euid: int, release: Release, host: str, says: str) -> None:
        with pytest.raises(EngineError) as caught:
            check_able(euid, release, host, "no engine")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_root_on_debian_may_install(self) -> None:
        check_able(0, self.DEBIAN, "unix:///var/run/docker.sock", "no engine")

    def test_failing_program_is_named_with_its_last_lines(self) -> None:
        with pytest.raises(EngineError, match=r"`sh -c .*` ended with exit code 3: fix it\n    second line") as caught:
            run_or_raise(["sh", "-c", "echo first; echo second line >&2; exit 3"], fix="fix it")
        assert caught.value.fix.startswith("fix it")

    def test_missing_and_slow_programs_have_the_codes_of_the_shell(self) -> None:
        assert run(["no-such-program-of-ours"]).returncode == 127
        assert run(["sleep", "60"], timeout=0.05).returncode == 124


def call(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call the command line as the Makefile does, on a machine without Docker: no client on PATH, no engine."""
    nowhere = {"PATH": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    return run([sys.executable, "-m", "lab.engine", command], env={**nowhere, **environ}, cwd=str(ROOT))


class TestCommandLine:
    def test_status_is_json_also_without_docker(self) -> None:
        done = call("status")
        assert done.returncode == 0
        assert json.loads(done.stdout)["reachable"] is False

    def test_ensure_names_the_command_and_installs_nothing(self) -> None:
        done = call("ensure", LAB_ENGINE="ask")
        assert done.returncode == 3
        assert "`make engine`" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_refusal_is_one_line_and_code_2(self) -> None:
        done = call("install", DOCKER_HOST="tcp://far.example:2375")
        assert done.returncode == 2
        assert done.stderr.startswith("error: DOCKER_HOST is tcp://far.example:2375")
        assert done.stderr.count("\n") == 1

    def test_runs_before_anything_is_installed(self) -> None:
        """-S and -I leave out site-packages: what is not in the standard library would not be found."""
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import lab.engine.provide, lab.engine.base_image"
        run_or_raise([sys.executable, "-I", "-S", "-c", code], fix="import the standard library only")


class TestBaseImage:
    def test_other_distributions_leave_the_mirror_to_the_tool(self) -> None:
        ubuntu = [Source(("http://mirror.example/ubuntu",), ("noble",), ("main",))]
        assert find_sources(Release("ubuntu", "noble"), ubuntu) == []

    def test_same_release_keeps_its_sources(self) -> None:
        sources = [Source((MIRROR,), ("trixie", "trixie-updates"), ("main",), KEY)]
        assert find_sources(Release("debian", "trixie"), sources) == sources

    def test_own_sources_replace_the_tool_s_list(self, tmp_path: Path) -> None:
        sources = [Source((MIRROR,), ("trixie",), ("main",), KEY)]
        argv = mmdebstrap_argv(tmp_path / "base.tar", tmp_path, sources)
        assert argv[-3:] == ["trixie", str(tmp_path / "base.tar"), str(tmp_path / "debian.sources")]
        assert list(parse_deb822((tmp_path / "debian.sources").read_text())) == sources
        assert mmdebstrap_argv(tmp_path / "base.tar", tmp_path, [])[-2:] == argv[-3:-1]

    def test_added_files_belong_to_root_and_have_their_modes(self, tmp_path: Path) -> None:
        key = tmp_path / "own.gpg"
        key.write_bytes(b"key")
        with tarfile.open(tmp_path / "base.tar", "w"):
            pass
        add_files(tmp_path / "base.tar", [Source((MIRROR,), ("trixie",), ("main",), str(key))])
        with tarfile.open(tmp_path / "base.tar") as archive:
            members = {member.name: member for member in archive.getmembers()}
        assert members["usr/sbin/policy-rc.d"].mode == 0o755
        assert str(key).lstrip("/") in members
        assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}

    @pytest.mark.parametrize("own_sources", [True, False])
    def test_cleaning_keeps_licences_and_touches_nothing_else(self, tmp_path: Path, own_sources: bool) -> None:
        kept = ["usr/share/doc/bash/copyright", "usr/bin/bash", "var/lib/apt/extended_states"]
        gone = ["usr/share/doc/bash/README", "usr/share/man/man1/bash.1.gz", "var/lib/apt/lists/a", "var/cache/apt/b"]
        (gone if own_sources else kept).append("etc/apt/sources.list")
        for name in kept + gone:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        run_or_raise(["sh", "-c", clean_script(own_sources), "sh", str(tmp_path)], fix="-")
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert left == set(kept)


class TestImages:
    def test_both_dockerfiles_share_the_python_layer(self) -> None:
        """The build cache and the disk share a layer only where the instruction is the same to the letter."""
        heads = [
            [line for line in (ROOT / path).read_text().splitlines() if line.startswith(("FROM ", "RUN "))][:2]
            for path in ("services/Dockerfile", "loadtests/Dockerfile")
        ]
        assert heads[0] == heads[1]
        assert heads[0][0] == "FROM debian:trixie-slim AS python"

    def test_locks_agree_and_name_no_host(self) -> None:
        locks = {}
        for path in (ROOT / "requirements").glob("*.txt"):
            text = path.read_text()
            assert "://" not in text, path
            assert not [line for line in text.splitlines() if line.startswith("-")], path
            locks[path.stem] = {line.split(" ")[0] for line in text.splitlines() if line[:1].isalpha()}
        extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]) - {"dev"}
        # What no image needs is locked with what tests need.
        extras -= {"parquet"}
        assert set(locks) == {"lab", "dev", *extras}
        assert locks["lab"] <= locks["dev"]
        assert all(locks[extra] <= locks["lab"] for extra in extras)


def test_program_is_run_in_its_folder_with_a_mask_that_others_can_read(tmp_path):
    script = "umask; pwd; printf '\\377 %s' \"$EXTRA\"; echo no >&2; exit 3"
    done = run(["sh", "-c", script], env={"EXTRA": "more"}, cwd=str(tmp_path))
    # A byte that is no text is replaced.
    assert (done.returncode, done.stdout, done.stderr) == (3, f"0022\n{tmp_path}\n\ufffd more", "no\n")
    said = run_or_raise(["sh", "-c", "pwd; echo $EXTRA"], fix="", env={"EXTRA": "more"}, cwd=str(tmp_path))
    assert said == f"{tmp_path}\nmore\n"


def test_program_speaks_english_and_finds_those_of_root(monkeypatch):
    """Its output is read, and a shell of root may lack the folders with `sbin`."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    language, path = run(["sh", "-c", "echo $LC_ALL; echo $PATH"]).stdout.splitlines()
    assert language == "C"
    assert path == f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    assert run(["sh", "-c", "echo $LC_ALL"], env={"LC_ALL": "x"}).stdout == "x\n"


def test_mask_of_this_process_is_not_that_of_a_program():
    before = os.umask(0o077)
    try:
        assert run(["sh", "-c", "umask"]).stdout == "0022\n"
    finally:
        os.umask(before)


def test_last_eight_lines_of_a_log_are_shown():
    assert tail("\n".join(map(str, range(20)))) == "".join(f"\n    {number}" for number in range(12, 20))
    assert tail(" \n") == ""


def test_slow_steps_are_announced_on_stderr(capsys):
    say("waiting")
    assert tuple(capsys.readouterr()) == ("", "waiting\n")


HERE = {"ServerVersion": "28.5.2", "ClientInfo": {"Plugins": [{"Name": "buildx", "Version": "v0.29.1"}]}}


@pytest.fixture
def ask(monkeypatch):
    """A Docker client that answers `info` with a code and fields; notes what it is asked, and for how long."""
    asked = []

    def start(code, fields, *, is_own=True):
        def run(argv, *, timeout=None):
            asked.append((argv[1], timeout))
            out = json.dumps(fields) if argv[1] == "info" else "sha256:1\n"
            return subprocess.CompletedProcess(argv, code, out, "it said this")

        monkeypatch.setattr(probe, "run", run)
        monkeypatch.setattr(probe, "is_own_engine", lambda environ: is_own and environ is os.environ)
        monkeypatch.setattr(probe, "read_nofile_limit", lambda: 4096)
        return asked

    return start


def test_local_engine_reports_its_image_and_its_limit(ask):
    asked = ask(0, HERE)
    found = status()
    assert asked == [("info", 20.0), ("image", 20.0)]
    assert (found.reachable, found.base_image, found.nofile_limit) == (True, "sha256:1", 4096)


def test_limit_of_a_remote_engine_is_unknown(ask):
    ask(0, HERE, is_own=False)
    assert status().nofile_limit is None


def test_missing_engine_is_asked_once(ask):
    asked = ask(1, {"ServerErrors": ["Cannot connect"]})
    found = status()
    assert asked == [("info", 20.0)]
    assert (found.reachable, found.base_image, found.nofile_limit) == (False, None, None)
    assert "no engine to ask for" in next(item.what for item in found.problems if item.part == "base_image")


def test_missing_client_is_named_with_what_was_said(ask):
    ask(127, {})
    said = {item.part: item.what for item in status().problems}
    assert said["client"] == "there is no `docker` on PATH"
    assert "it said this" in said["engine"]
    assert not probe.is_complete()


def test_engine_without_the_image_says_so(ask):
    found = read_status(0, json.dumps(HERE), "", "")
    assert "the engine has no image" in next(item.what for item in found.problems if item.part == "base_image")


def test_engine_with_all_plugins_is_complete(ask):
    plugins = [{"Name": "buildx", "Version": "v0.29.1"}, {"Name": "compose", "Version": "v2.40.3"}]
    asked = ask(0, {"ServerVersion": "28.5.2", "ClientInfo": {"Plugins": plugins}})
    assert probe.is_complete()
    assert asked == [("info", 20.0)]
    ask(0, HERE)
    assert not probe.is_complete()


@pytest.mark.parametrize("code", [0, 1])
def test_engine_is_running_if_it_returns_its_version(ask, code):
    asked = ask(code, {})
    assert probe.is_running() is (code == 0)
    assert asked == [("version", 20.0)]
