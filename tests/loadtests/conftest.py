"""Fixtures of the load tests."""

from tests.support.load_fixtures import (  # noqa: F401  # fixtures
    backend,
    encode_targets,
    generator,
    judge,
    load,
    make_measurement,
    open_model,
    open_page,
    open_server,
    open_ui,
    run_locust,
    server,
    url,
)
