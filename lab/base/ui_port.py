"""The port of Locust's web UI on this machine."""

from collections.abc import Mapping

from lab.base.environ import ENV_UI_PORT
from lab.base.errors import LabError

# Locust's own: in the container, as compose.yaml says, and on this machine unless LAB_UI_PORT sets another one.
UI_PORT = 8089


def choose_ui_port(environ: Mapping[str, str]) -> int:
    """Return the port that LAB_UI_PORT sets, or Locust's own.

    Raises:
        LabError: the variable is not a port.
    """
    text = environ.get(ENV_UI_PORT) or str(UI_PORT)
    # `isdigit` is true for a superscript, which is no number.
    if not (text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise LabError(f"{ENV_UI_PORT}={text!r} is not a port")
    return int(text)
