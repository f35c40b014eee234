"""Find or install a Docker engine, its client's plugins and the base image.

It runs before anything is installed (`python3 -m lab.engine`), so it imports only the standard library.
"""

from lab.engine.errors import EngineError
from lab.engine.policy import decide
from lab.engine.probe import BASE_IMAGE, EngineStatus, Problem, is_running, status

__all__ = ["BASE_IMAGE", "EngineError", "EngineStatus", "Problem", "decide", "is_running", "status"]
