"""Further kinds of faults, for `--further`. People thought of them, and `tools/mutants/operators.py` has not got them.

* One part of a condition is missing.
* The next field of the same type is read, instead of the right one: `user_seconds` for `system_seconds`.
* An attribute or an item keeps its old value.
* What stands under `finally` is done only when nothing has failed.
* A `with` without a name is missing: what it suppresses, holds or puts back.
* An argument without a name is None or not handed on, or two neighbours have changed places.

Many are equivalent: a part of a condition that only a type checker needs, fields that are equal where it matters. So
none is accepted in a list, and a survivor is only a place to look at.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tools.mutants.operators import Site, shorten

ROOT = Path(__file__).resolve().parents[2]

# A fault in text is seen by people, and is not what these are for.
_TEXT = ("str", "Path", "tuple[str", "Callable")
# Calls whose arguments every use would miss, or whose order says nothing.
_PLAIN_CALLS = {"cast", "getattr", "hasattr", "isinstance", "max", "min", "zip"}


def walk_further(tree: ast.Module) -> Iterator[Site]:
    """Yield the places of these faults, in an order that depends on the tree alone."""
    yield from _walk_body(tree.body, "")


def _walk_body(body: list[ast.stmt], scope: str) -> Iterator[Site]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _walk_body(statement.body, f"{scope}.{statement.name}" if scope else statement.name)
        elif scope:
            yield from _walk_statement(statement, scope)


def _walk_statement(statement: ast.stmt, scope: str) -> Iterator[Site]:
    match statement:
        case ast.Assign(targets=targets) if not scope.endswith("__init__") and all(
            isinstance(target, ast.Attribute | ast.Subscript) for target in targets
        ):
            yield Site(statement, scope, statement, "removed", ast.Pass())
        case ast.Try(finalbody=[first, *_]):
            tried = [ast.Try(statement.body, statement.handlers, statement.orelse, [])]
            body = tried if statement.handlers else statement.body
            block = _as_block([*body, *statement.finalbody])
            yield Site(statement, scope, first, "finally only without an exception", block)
        case ast.With(items=items) if not any(item.optional_vars for item in items):
            yield Site(statement, scope, statement, "without the context", _as_block(statement.body))
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr | ast.withitem):
            yield from _walk_expression(child, scope, statement)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from _walk_body(child.body, scope)
    for block_name in ("body", "orelse", "finalbody"):
        yield from _walk_body(getattr(statement, block_name, []), scope)


def _walk_expression(expression: ast.AST, scope: str, statement: ast.stmt) -> Iterator[Site]:
    for node in ast.walk(expression):
        match node:
            case ast.BoolOp(op=operator, values=values):
                for index, value in enumerate(values):
                    kept = [*values[:index], *values[index + 1 :]]
                    rest = kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)
                    yield Site(node, scope, statement, f"without {ast.unparse(value)[:80]}", rest)
            case ast.Attribute(value=value, attr=name, ctx=ast.Load()) if name in _find_siblings():
                other = _find_siblings()[name]
                change = f".{name} -> .{other} in: {shorten(statement)}"
                yield Site(node, scope, statement, change, ast.Attribute(value, other, ast.Load()))
            case ast.Call(func=function, args=[_, _, *_] as arguments, keywords=keywords) if (
                not isinstance(statement, ast.Raise) and ast.unparse(function) not in _PLAIN_CALLS
            ):
                for change, others in _change_arguments(arguments):
                    yield Site(node, scope, statement, change, ast.Call(function, others, keywords))


def _change_arguments(arguments: list[ast.expr]) -> Iterator[tuple[str, list[ast.expr]]]:
    if any(isinstance(argument, ast.Starred) for argument in arguments):
        return
    *others, last = arguments
    if not isinstance(last, ast.Constant | ast.JoinedStr):
        yield f"without {ast.unparse(last)[:80]}", others
    for index, argument in enumerate(arguments):
        if not isinstance(argument, ast.Name | ast.Attribute):
            continue
        before, after = arguments[:index], arguments[index + 1 :]
        yield f"None for {ast.unparse(argument)[:80]}", [*before, ast.Constant(None), *after]
        if after and isinstance(after[0], ast.Name | ast.Attribute):
            yield f"{ast.unparse(argument)[:80]} after its neighbour", [*before, after[0], argument, *after[1:]]


def _as_block(body: list[ast.stmt]) -> ast.stmt:
    """Make one statement of several."""
    return ast.If(ast.Constant(True), body, [])


@functools.cache
def _find_siblings(root: Path = ROOT) -> dict[str, str]:
    """Give, for each field of a dataclass of the project, the next one of the same type in the same class."""
    found: dict[str, str] = {}
    for folder in ("lab", "loadtests", "services", "fuzz"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(it) for it in node.decorator_list):
                    for field, other in _pair_fields(node):
                        found.setdefault(field, other)
    return found


def _pair_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    kinds: dict[str, list[str]] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            kinds.setdefault(ast.unparse(statement.annotation), []).append(statement.target.id)
    for kind, names in kinds.items():
        if len(names) > 1 and not kind.startswith(_TEXT):
            yield from zip(names, [*names[1:], names[0]], strict=True)
