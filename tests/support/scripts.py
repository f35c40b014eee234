"""Scripts in a process of their own, as Locust patches the one that imports it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def run_script(script: str, environ: Mapping[str, str] | None = None) -> Any:
    """Run Python code in the root of the project; return what it prints after `TOLD `, in JSON.

    Args:
        environ: variables besides those of this process.
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=_ROOT,
        env=os.environ | (environ or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("TOLD ")[2])


def run_checks(path: str) -> None:
    """Run a file of checks in a process that gevent has patched from its start, as a generator's is.

    Args:
        path: from the root of the project.
    """
    code = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options, path], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
