"""The port of the web UI: the default, the variable, and what is no port."""

import pytest

from lab.base.errors import LabError
from lab.base.ui_port import choose_ui_port


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({}, 8089),
        ({"LAB_UI_PORT": ""}, 8089),
        ({"LAB_UI_PORT": "1"}, 1),
        ({"LAB_UI_PORT": "65535"}, 65535),
    ],
)
def test_port_is_that_of_the_variable_or_the_default(environ: dict[str, str], port: int) -> None:
    assert choose_ui_port(environ) == port


@pytest.mark.parametrize("text", ["0", "65536", "x", "-1", "8089 ", "\N{SUPERSCRIPT TWO}", "9" * 5000], ids=range(7))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LabError, match=r"^LAB_UI_PORT=.* is not a port$"):
        choose_ui_port({"LAB_UI_PORT": text})
