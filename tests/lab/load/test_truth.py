"""A load reports the truth about servers and generators with a known defect."""

from pathlib import Path

import docker
import pytest

from lab.experiments.bench.findings import RowKey, read_findings
from lab.experiments.store import Run
from lab.load.generator import PersistentGenerator
from lab.load.measure import measure
from lab.load.presets import find_preset
from lab.metrics.verdict import Limit
from lab.report.bench_text import make_answers, make_lines
from lab.servers.open import open_backend
from tests.support.suite import MODEL_TESTS_ONLY

FAULTY = Path(__file__).parent / "faulty_server"


def test_server_with_one_wrong_reply_in_a_thousand_has_no_clean_row(process_project: str, lab, tmp_path: Path) -> None:
    done = lab(
        *("--backend", "process", "--project", process_project),
        *("bench", "--quick", "asyncio_streams", "--rounds", "1", "--duration", "500ms"),
        *("--out", str(tmp_path)),
        environ={"PYTHONPATH": str(FAULTY), **MODEL_TESTS_ONLY},
    )
    findings = read_findings(Run.find(None, "bench", root=tmp_path))
    # No conformance test notices it; the measurement does.
    assert findings.unsound == {}, done.stdout
    row = findings.rows[RowKey("session", "asyncio_streams", "closed")]
    assert row.failed["wrong bytes"] > 0
    answers = " ".join(advice.text for advice in make_answers(findings, "session"))
    assert "Best" not in answers
    assert "Avoid: asyncio_streams (0." in answers
    (line,) = make_lines(findings, "session")
    assert "% FAILED" in line.cells["verdict"].text
    assert "wrong bytes" in line.cells["verdict"].note
    assert row.verdicts == {"wrong": len(row.found)}
    assert "wrong bytes" in row.failing
    assert done.returncode == 1


@pytest.mark.docker
@pytest.mark.xdist_group("labs")
def test_throttled_generator_is_named_in_its_rows(docker_project: str, engine: docker.DockerClient) -> None:
    backend = open_backend("docker", docker_project)
    model = backend.catalogue["uvloop_protocol"]
    try:
        backend.up([model.name])
        with PersistentGenerator(backend.helpers) as generator:

            def load():
                return measure(
                    backend,
                    model,
                    find_preset("closed_ping").change(users=16, duration=1.0, warm_up=0.3),
                    generator=generator,
                )

            load()
            # A fiftieth of a core, which is less than what others leave it on a busy machine.
            assert generator.host is not None
            engine.containers.get(generator.host).update(cpu_period=50_000, cpu_quota=1_000)
            found = load()
        assert found.answered > 0
        assert found.load.generator_throttled > 0
        assert found.verdict.bound is Limit.GENERATOR, found.verdict
        assert found.verdict.is_lower_bound
    finally:
        backend.down()
