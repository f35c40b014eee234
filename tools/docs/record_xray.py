"""Record the scenes of docs/models/: `python -m tools.docs.record_xray [MODEL]...` (`make xray`).

Each model plays both scenes as a process, or in a container if it runs only there. The recordings go to
docs/data/xray.json; those of models that are not named, or cannot run here, are kept. A round is kept only if the
clients came in time, so run it on an idle machine.
"""

import os
import sys
from pathlib import Path

from lab.base import interrupts, output
from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.environment import describe_environment
from lab.experiments.xray.analysis import is_orderly
from lab.experiments.xray.record import choose_folder, record
from lab.experiments.xray.recording import Recording, read_recordings, write_recordings
from lab.experiments.xray.scenes import SCENES
from lab.servers.catalogue import Catalogue
from lab.servers.open import open_backend
from lab.servers.runtime import runtime_directory

PROJECT = "socketlab-xray-docs"
FILE = ROOT / "docs" / "data" / "xray.json"
CHOSEN = ("sleep", "slow")
_ROUNDS = 7
_FACTS = ("date", "commit", "processor", "system")


def record_model(name: str, backend_name: str) -> list[Recording]:
    """Return a recording of each scene.

    Raises:
        LabError: the model cannot run, or the clients came late in each round.
    """
    backend = open_backend(backend_name, PROJECT)
    folder = choose_folder(backend, runtime_directory(PROJECT))
    os.environ[ENV_XRAY] = folder
    facts = describe_environment(backend.describe())
    machine = {fact: facts.get(fact) for fact in _FACTS}
    found = []
    with interrupts.sure(backend.down):
        backend.up([name])
        for scene in CHOSEN:
            recording = record(backend, name, SCENES[scene], folder, rounds=_ROUNDS, machine=machine)
            if not is_orderly(recording):
                raise LabError(f"{scene}: this machine was too busy")
            found.append(recording)
    return found


def main() -> int:
    """Record, and write the file; return 1 if a model could not be recorded."""
    catalogue = Catalogue.load()
    explained = [name for name in catalogue.names if Path(ROOT, "services", "models", f"{name}.py").exists()]
    kept = {(each.model, each.scene): each for each in (read_recordings(FILE) if FILE.exists() else [])}
    problems = []
    for name in sys.argv[1:] or explained:
        try:
            backend = "docker" if catalogue[name].only_in_container else "process"
            kept |= {(each.model, each.scene): each for each in record_model(name, backend)}
            print(f"recorded {name}", flush=True)
        except LabError as error:
            problems.append(f"{name}: {error}")
    order = [(name, scene) for name in explained for scene in CHOSEN]
    write_recordings(FILE, [kept[key] for key in order if key in kept])
    for problem in problems:
        print(f"record_xray: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    output.install()
    sys.exit(main())
