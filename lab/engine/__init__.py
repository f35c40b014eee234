"""Finds or provides a Docker engine, its client's plugins and the base image; standard library only.

It must run before anything is installed (`python3 -m lab.engine`), so nothing here imports a package. What the rest of
the lab needs of it is named here.
"""

from lab.engine.errors import EngineError
from lab.engine.policy import decide
from lab.engine.probe import BASE_IMAGE, EngineStatus, Problem, is_running, status

__all__ = ["BASE_IMAGE", "EngineError", "EngineStatus", "Problem", "decide", "is_running", "status"]
