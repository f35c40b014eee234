"""The fork server: each load has its environment and its arguments, and its end is told after its output."""

from tests.support.scripts import run_script

# Locust is replaced by what each load does; all that the server and its loads write is collected in a file.
SERVE = """
import json, os, signal, sys, tempfile
from types import SimpleNamespace as Stub
from lab.base.messages import decode, encode
from lab.load.messages import LoadEnded, RunLoad
from loadtests import fork_server as module

def leave(code):
    sys.exit(code)

def fail():
    raise OSError("it failed")

def show():
    print(os.environ["MINE"], os.environ["OTHER"], *sys.argv, end="")

LOADS = {"show": show, "fail": fail, "text": lambda: leave("why"), "three": lambda: leave(3)}
LOADS["none"] = lambda: leave(None)
LOADS["killed"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
module.locust.main.main = lambda: LOADS[sys.argv[-1]]()
module.die_with_lab = lambda: print("dies with the lab")
os.environ |= {"MINE": "of the server", "OTHER": "kept"}
orders = [encode(RunLoad(("--users", name), {"MINE": "of the load"})) for name in LOADS]
sys.stdin = Stub(buffer=[f"{line}\\n".encode() for line in ["no order", *orders]])
with tempfile.TemporaryFile() as file:
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    module.main()
    sys.stdout.flush()
    for descriptor, own in enumerate(kept, 1):
        os.dup2(own, descriptor)
    file.seek(0)
    lines = file.read().decode().splitlines()
said = [f"ended with {end.exit_code}" if (end := decode(line, LoadEnded)) else line for line in lines if line]
print("TOLD", json.dumps([said, os.environ["MINE"]]))
"""


def test_each_load_has_its_own_environment_and_ends_with_its_code() -> None:
    said, mine = run_script(SERVE)
    begin = "dies with the lab"
    assert [line for line in said if not line.startswith(("Traceback", "  "))] == [
        # What has no newline at its end leaves the message in a line of its own.
        *(begin, "of the load kept locust -f loadtests/locustfile.py --users show", "ended with 0"),
        *(begin, "OSError: it failed", "ended with 1"),
        *(begin, "why", "ended with 1"),
        *(begin, "ended with 3"),
        *(begin, "ended with 0"),
        *(begin, "ended with -9"),
    ]
    assert mine == "of the server"
