"""Quote code in a page: functions, classes and assignments of a file, word for word."""

import ast
from collections.abc import Sequence

from lab.base.errors import LabError


class PageError(LabError):
    """A generated block names something that does not exist."""


def extract(source: str, wanted: Sequence[str], file: str) -> str:
    """Return functions, methods, classes and assignments of a module, word for word, in the given order.

    Docstrings of several lines are left out. A comment `# ...` stands for omitted parts of a class.

    Raises:
        PageError: the file does not define one of the names.
    """
    lines = source.splitlines()
    body = ast.parse(source).body
    pieces: list[str] = []
    last: tuple[ast.ClassDef, int] | None = None  # the class of the last piece, and the last line quoted from it
    for name in wanted:
        owner, node = _find(body, name.split("."), file)
        # The formatter checks the code in pages too: two blank lines between definitions.
        if pieces and (owner is None or last is None or last[0] is not owner):
            pieces += ["", ""]
        if owner is None:
            pieces += _lines_of(node, lines)
            last = None
            continue
        if last is None or last[0] is not owner:
            pieces += _heading_of(owner, lines)
            last = owner, _end_of_heading(owner)
        if any(line.strip() for line in lines[last[1] : _start(node) - 1]):
            pieces += ["", " " * node.col_offset + "# ..."]
        pieces += ["", *_lines_of(node, lines)]
        last = owner, node.end_lineno or node.lineno
    return "\n".join(pieces)


def _find(body: Sequence[ast.stmt], path: Sequence[str], file: str) -> tuple[ast.ClassDef | None, ast.stmt]:
    """Return the definition at a path of names, and its class, if it is in one."""
    owner: ast.ClassDef | None = None
    for depth, name in enumerate(path):
        node = next((each for each in body if name in _names_of(each)), None)
        if node is None:
            break
        if depth == len(path) - 1:
            return owner, node
        if not isinstance(node, ast.ClassDef):
            break
        owner, body = node, node.body
    raise PageError(f"{file} has no {'.'.join(path)}")


def _names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _lines_of(node: ast.stmt, lines: Sequence[str]) -> list[str]:
    start, end = _start(node), node.end_lineno or node.lineno
    left_out = range(0)
    if (docstring := _docstring_of(node)) and docstring.end_lineno != docstring.lineno:
        left_out = range(docstring.lineno, (docstring.end_lineno or 0) + 1)
        while left_out.stop <= end and not lines[left_out.stop - 1].strip():  # and blank lines below it
            left_out = range(left_out.start, left_out.stop + 1)
    return [lines[number - 1] for number in range(start, end + 1) if number not in left_out]


def _heading_of(node: ast.ClassDef, lines: Sequence[str]) -> list[str]:
    return list(lines[_start(node) - 1 : _end_of_heading(node)])


def _end_of_heading(node: ast.ClassDef) -> int:
    """Return the last line of `class ...:`, or of its docstring of one line."""
    docstring = _docstring_of(node)
    if docstring and docstring.end_lineno == docstring.lineno:
        return docstring.lineno
    return _start(node.body[0]) - 1


def _docstring_of(node: ast.stmt) -> ast.Expr | None:
    match node:
        case (
            ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
            | ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
        ):
            return first
    return None


def _start(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])
