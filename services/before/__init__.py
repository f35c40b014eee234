"""What has to happen in the process of one model before anything else is imported.

`services.run` imports this package first of all. It imports the module here that has the model's name, if there is one.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence


def chosen_model(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """The model that `services.run` is about to start, as its parser will find it; empty if none is named."""
    name = environ.get("LAB_MODEL", "")
    for position, word in enumerate(arguments):
        if word == "--model":
            name = "".join(arguments[position + 1 : position + 2])
        elif word.startswith("--model="):
            name = word.removeprefix("--model=")
    return name


_name = chosen_model(sys.argv[1:], os.environ)
if _name.isidentifier() and importlib.util.find_spec(f"{__name__}.{_name}"):
    importlib.import_module(f"{__name__}.{_name}")
