"""Put the figures of a stored run of `lab bench` into docs/data/measured.json.

    python -m tools.docs.measured [RUN]      RUN is as in `lab bench --show`
    python -m tools.docs.measured --models   the models to measure: those without a profile, and two peers

The run replaces all models of the file: figures of two runs do not belong into one table. The part with idle
connections belongs to benchmarks/idle.py, and stays.
"""

import sys

from lab.base.errors import LabError
from lab.experiments.bench.findings import read_findings
from lab.experiments.bench.plan import NAME
from lab.experiments.published import MEASURED_FILE, Measured
from lab.experiments.store import Run
from lab.servers.catalogue import Catalogue
from tools.docs.figures import REFERENCE

# Of RESP and of HTTP: what the figures of the models are compared to.
_PEERS = ("peer_redis", REFERENCE)


def list_models() -> list[str]:
    """Return the models to measure."""
    return [*(model.name for model in Catalogue.load().select()), *_PEERS]


def main(name: str | None = None) -> int:
    """Write the file.

    Args:
        name: of the run; default: the last one.
    """
    try:
        run = Run.find(name, NAME)
        measured = Measured.of(read_findings(run))
        measured.save()
    except LabError as error:
        print(f"tools.docs.measured: {error}", file=sys.stderr)
        return 1
    for model, reason in measured.missing.items():
        print(f"not measured: {model}: {reason}", file=sys.stderr)
    print(f"{len(measured.models)} models of {run.started}, written to {MEASURED_FILE}; `make docs` makes the pages")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--models"]:
        print(*list_models())
    else:
        sys.exit(main(*sys.argv[1:2]))
