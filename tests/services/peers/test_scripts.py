"""How the scripts of `services/peers` start other people's servers: stand-ins here, which say what they are given."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import ROOT
from lab.servers.catalogue import Catalogue

PEERS = ROOT / "services" / "peers"
SHELL = shutil.which("sh") or "sh"
MODELS = [model.name for model in Catalogue.load().models if model.profile == "http"]

GUNICORN = (
    "python3 -m gunicorn --bind 0.0.0.0:8080 --workers {} --worker-tmp-dir /dev/shm --keep-alive 75 "
    "--no-control-socket --worker-class"
)
WSGI, ASGI = "services.apps.wsgi:application", "services.apps.asgi:application"
# With three cores: twice as many workers and one more for gunicorn, one for the others.
COMMANDS = {
    "peer_gunicorn_sync": (f"{GUNICORN} sync {WSGI}", 7),
    "peer_gunicorn_gthread": (f"{GUNICORN} gthread --threads 4 {WSGI}", 7),
    "peer_gunicorn_gevent": (f"{GUNICORN} gevent {WSGI}", 7),
    "peer_uvicorn": (
        "python3 -m uvicorn --host 0.0.0.0 --port 8080 --workers {} --loop uvloop --http httptools "
        f"--timeout-keep-alive 75 --no-access-log {ASGI}",
        1,
    ),
    "peer_hypercorn": (
        f"python3 -m hypercorn --bind 0.0.0.0:8080 --workers {{}} --worker-class uvloop --keep-alive 75 {ASGI}",
        1,
    ),
    "peer_granian_asgi": (
        "python3 -m granian --interface asgi --host 0.0.0.0 --port 8080 --workers {} --loop uvloop "
        f"--no-access-log {ASGI}",
        1,
    ),
    "peer_granian_wsgi": (
        f"python3 -m granian --interface wsgi --host 0.0.0.0 --port 8080 --workers {{}} --no-access-log {WSGI}",
        1,
    ),
    "peer_waitress": (f"python3 -m waitress --listen 0.0.0.0:8080 {WSGI}", 0),
    "peer_cheroot": (f"python3 -m cheroot --bind 0.0.0.0:8080 {WSGI}", 0),
    "peer_twisted_web": ("python3 -m twisted web --listen tcp:8080 --wsgi services.apps.wsgi.application", 0),
    "peer_http_server": ("python3 -m services.apps.threading_http_server", 0),
    "peer_wsgiref": ("python3 -m services.apps.wsgiref_server", 0),
    "peer_nginx": ("nginx -c /srv/nginx.conf -e stderr", 0),
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with all commands that the scripts know."""
    for name in ("python3", "nginx", "redis-server", "mkdir", "rm"):
        (tmp_path / name).write_text(f'#!{SHELL}\necho {name} "$@"\n')
    (tmp_path / "nproc").write_text(f"#!{SHELL}\necho 3\n")
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    return tmp_path


def start(script: str, tools: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [SHELL, str(PEERS / script)]
    return subprocess.run(command, env={"PATH": str(tools), **environ}, capture_output=True, text=True, check=False)


def test_each_peer_has_a_command() -> None:
    assert sorted(COMMANDS) == sorted(MODELS)


@pytest.mark.parametrize("model", COMMANDS)
def test_http_server_has_the_settings_that_its_documentation_recommends(model: str, tools: Path) -> None:
    command, workers = COMMANDS[model]
    for environ, count in (({}, workers), ({"LAB_WORKERS": "5"}, 5))[: 2 if workers else 1]:
        done = start("http_server.sh", tools, LAB_MODEL=model, **environ)
        assert done.stdout.splitlines() == [
            f"mkdir -p /run/lab/{model}",
            f"rm -f /run/lab/{model}/http.sock",
            command.format(count),
        ]
        assert (done.returncode, done.stderr) == (0, f"{model}: 3 cores\n")


def test_unknown_server_is_an_error(tools: Path) -> None:
    done = start("http_server.sh", tools, LAB_MODEL="peer_apache")
    assert done.returncode == 2
    assert done.stderr.endswith("http_server.sh: no server is called 'peer_apache'\n")


def test_redis_keeps_nothing_and_asks_nobody_for_a_certificate(tools: Path) -> None:
    done = start("peer_redis.sh", tools, LAB_TLS_CERT="server.pem")
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.splitlines()[1].split(" --")
    assert done.stdout.splitlines()[0] == "mkdir -p /run/lab/peer_redis"
    assert words == [
        "redis-server",
        "bind 0.0.0.0",
        "protected-mode no",
        "databases 1",
        "save ",  # never
        "appendonly no",
        "dir /run/lab/peer_redis",
        "port 6379",
        "unixsocket /run/lab/peer_redis/command.sock",
        "unixsocketperm 777",
        "tls-port 6380",
        "tls-cert-file server.pem",
        "tls-key-file server.pem",
        "tls-ca-cert-file /run/secrets/tls_ca",
        "tls-auth-clients optional",
    ]
