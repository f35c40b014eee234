"""twisted_reactor: what only a reactor can get wrong."""

import subprocess
import sys

# The reactor sets signal handlers of its own between its start-up triggers, unless it is told not to; what an earlier
# handler raises there it logs, and runs on.
SCRIPT = """
import os, signal, sys
from services import run
from services.models.twisted_reactor import reactor

reactor.addSystemEventTrigger("before", "startup", os.kill, os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(run.main(["--model", "twisted_reactor", "--listen", "echo=tcp://127.0.0.1:0"]))
"""


def test_a_signal_while_the_reactor_starts_is_not_lost() -> None:
    for name in ("SIGTERM", "SIGINT"):
        command = [sys.executable, "-W", "error", "-c", SCRIPT, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
