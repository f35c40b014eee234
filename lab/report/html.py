"""Templates of the HTML pages."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from lab.report.charts.chart import STYLE
from lab.report.charts.palette import DARK, LIGHT, make_variables


@cache
def load_template(name: str) -> Template:
    # Escape all values: the text of a model comes from a file that a user may edit.
    environment = Environment(
        loader=PackageLoader("lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # These are constants, without a value of a user.
    environment.globals |= {
        "light": make_variables(LIGHT),
        "dark": make_variables(DARK),
        "chart_style": Markup(STYLE),  # noqa: S704
    }
    return environment.get_template(name)
