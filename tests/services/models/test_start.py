"""A signal to stop while a library starts, which handles signals in ways of its own meanwhile."""

import subprocess
import sys

import pytest

# The reactor sets signal handlers of its own between its start-up triggers, unless it is told not to; what an earlier
# handler raises there it logs, and runs on.
TWISTED = """
import os, signal, sys
from services import run
from services.models.twisted_reactor import reactor

reactor.addSystemEventTrigger("before", "startup", os.kill, os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(run.main(["--model", "twisted_reactor", "--listen", "echo=tcp://127.0.0.1:0"]))
"""

# What is raised in the loop of trio itself, and not in a task, trio takes for an error of its own: exit code 1.
TRIO = """
import os, signal, sys
from services import run

def send_within_trio(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "get_events":
        sys.setprofile(None)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

sys.setprofile(send_within_trio)
code = run.main(["--model", "trio_nursery", "--listen", "echo=tcp://127.0.0.1:0"])
sys.exit(3 if sys.getprofile() else code)  # 3: trio has no such function any more
"""


@pytest.mark.parametrize("script", [TWISTED, TRIO], ids=["twisted_reactor", "trio_nursery"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_library_starts_is_not_lost(script: str, name: str) -> None:
    command = [sys.executable, "-W", "error", "-c", script, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
