"""The records of a stored run that several experiments have: a measurement, or why there is none."""

from collections.abc import Mapping
from typing import Any

from lab.load.measurement import Measurement

# The folder of the results of the conformance suite.
CONFORMANCE = "conformance"

_MEASUREMENT, _FAILURE = "measurement", "failure"


def key_of_check(model: str) -> str:
    """Return the key of a model's result in the conformance suite."""
    return f"{CONFORMANCE}/{model}"


def record_measurement(found: Measurement, **facts: object) -> dict[str, Any]:
    """Return the record of a measurement, with further facts about its step."""
    return {**facts, _MEASUREMENT: found.as_json()}


def record_failure(reason: str, **facts: object) -> dict[str, Any]:
    """Return the record of a step without a measurement."""
    return {**facts, _FAILURE: reason}


def read_measurement(record: Mapping[str, Any]) -> Measurement | None:
    """Return the measurement of a record; None if the step failed."""
    return Measurement.from_json(record[_MEASUREMENT]) if _MEASUREMENT in record else None


def read_failure(record: Mapping[str, Any]) -> str | None:
    """Return why a record has no measurement; None if it has one."""
    return record.get(_FAILURE)
