"""The faults that `make mutants` plants.

Each operator stands for a mistake that a person makes: a comparison turned round, a limit that is off by one, a sum
instead of a difference, an argument that is not handed on, a statement that is missing. Text is left alone (docstrings,
messages, names), and so are annotations, since no figure depends on them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
# Arguments that no figure depends on: how text looks, and how a file is opened.
_NO_FIGURE = {"strict", "encoding", "flush", "daemon", "style", "box", "pad_edge", "padding", "indent", "justify"}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.And: "and", ast.Or: "or",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a tree and the change that is made there.

    Args:
        node: what is replaced; shown as the code.
        statement: the statement that holds it.
        replacement: what stands there instead.
    """

    node: ast.AST
    scope: str
    statement: ast.AST
    change: str
    replacement: ast.AST


def walk(tree: ast.Module) -> Iterator[Site]:
    """Yield the places of these faults, in an order that depends on the tree alone."""
    yield from _walk_body(tree.body, "")


def _walk_body(body: list[ast.stmt], scope: str) -> Iterator[Site]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{scope}.{statement.name}" if scope else statement.name
            if not isinstance(statement, ast.ClassDef):
                for default in (*statement.args.defaults, *(item for item in statement.args.kw_defaults if item)):
                    yield from _walk_expression(default, scope, statement)
            yield from _walk_body(statement.body, inner)
            continue
        yield from _walk_statement(statement, scope)


def _walk_statement(statement: ast.stmt, scope: str) -> Iterator[Site]:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Pass):
        return
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
        return
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return
    if scope and isinstance(statement, ast.Expr | ast.Raise | ast.AugAssign):
        yield Site(statement, scope, statement, "removed", ast.Pass())
    if isinstance(statement, ast.AugAssign) and type(statement.op) in _ARITHMETIC:
        yield _swap_operator(statement, scope, statement)
    if isinstance(statement, ast.Break):
        yield Site(statement, scope, statement, "-> continue", ast.Continue())
    if isinstance(statement, ast.Continue):
        yield Site(statement, scope, statement, "-> break", ast.Break())
    if isinstance(statement, ast.If | ast.While) and not _is_compared(statement.test):
        yield _negate(statement.test, scope, statement)
    if isinstance(statement, ast.Raise):
        return  # what stands in a message is text
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr):
            if not (isinstance(statement, ast.AnnAssign) and child is statement.annotation):
                yield from _walk_expression(child, scope, statement)
        elif isinstance(child, ast.withitem):
            yield from _walk_expression(child.context_expr, scope, statement)
        elif isinstance(child, ast.ExceptHandler):
            yield from _walk_body(child.body, scope)
        elif isinstance(child, ast.match_case):
            if child.guard:
                yield from _walk_expression(child.guard, scope, child.guard)
            yield from _walk_body(child.body, scope)
    for block in ("body", "orelse", "finalbody"):
        yield from _walk_body(getattr(statement, block, []), scope)


def _walk_expression(node: ast.expr, scope: str, statement: ast.AST, *, in_text: bool = False) -> Iterator[Site]:
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in _COMPARISONS[type(operator)]:
                    yield _swap_comparison(node, index, other, scope, statement)
        case ast.BinOp(left=left, right=right) if type(node.op) in _ARITHMETIC and not (
            _is_text(left) or _is_text(right)
        ):
            yield _swap_operator(node, scope, statement)
        case ast.BoolOp():
            yield _swap_bool(node, scope, statement)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield Site(node, scope, statement, f"-> {ast.unparse(operand)}", operand)
        case ast.IfExp() if not _is_compared(node.test):
            yield _negate(node.test, scope, statement)
        case ast.Constant(value=bool()) if not in_text:
            yield _set_constant(node, not node.value, scope, statement)
        case ast.Constant(value=int() | float() as number) if not in_text:
            # Small numbers count something, and are off by one; large ones are limits, and are off by far.
            yield _set_constant(node, number + 1 if number in (0, 1, 2, 3) else number * 2, scope, statement)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield _rename_call(node, _CALLS[name], scope, statement)
    if isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg and keyword.arg not in _NO_FIGURE and not in_text:
                yield _drop_keyword(node, index, scope, statement)
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for generator in node.generators:
            for condition in generator.ifs:
                if not _is_compared(condition):
                    yield _negate(condition, scope, statement)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _walk_expression(child, scope, statement, in_text=in_text or isinstance(node, ast.JoinedStr))
        elif isinstance(child, ast.keyword) and child.arg not in _NO_FIGURE:
            yield from _walk_expression(child.value, scope, statement, in_text=in_text)
        elif isinstance(child, ast.comprehension):
            for part in (child.iter, *child.ifs):
                yield from _walk_expression(part, scope, statement, in_text=in_text)


def _is_compared(node: ast.expr) -> bool:
    """Tell whether another operator already turns this condition round."""
    return isinstance(node, ast.Compare | ast.BoolOp) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _swap_comparison(node: ast.Compare, index: int, other: type[ast.cmpop], scope: str, statement: ast.AST) -> Site:
    change = f"{_SYMBOLS[type(node.ops[index])]} -> {_SYMBOLS[other]}"
    operators = [*node.ops[:index], other(), *node.ops[index + 1 :]]
    return Site(node, scope, statement, change, ast.Compare(node.left, operators, node.comparators))


def _swap_operator(node: ast.BinOp | ast.AugAssign, scope: str, statement: ast.AST) -> Site:
    other = _ARITHMETIC[type(node.op)]
    change = f"{_SYMBOLS[type(node.op)]} -> {_SYMBOLS[other]}"
    if isinstance(node, ast.AugAssign):
        return Site(node, scope, statement, change, ast.AugAssign(node.target, other(), node.value))
    return Site(node, scope, statement, change, ast.BinOp(node.left, other(), node.right))


def _swap_bool(node: ast.BoolOp, scope: str, statement: ast.AST) -> Site:
    other = ast.Or if isinstance(node.op, ast.And) else ast.And
    change = f"{_SYMBOLS[type(node.op)]} -> {_SYMBOLS[other]}"
    return Site(node, scope, statement, change, ast.BoolOp(other(), node.values))


def _negate(node: ast.expr, scope: str, statement: ast.AST) -> Site:
    return Site(node, scope, statement, "negated", ast.UnaryOp(ast.Not(), node))


def _set_constant(node: ast.Constant, value: float | bool, scope: str, statement: ast.AST) -> Site:
    # The statement is shown: a number alone says nothing.
    change = f"{node.value!r} -> {value!r} in: {shorten(statement)}"
    return Site(node, scope, statement, change, ast.Constant(value))


def _rename_call(node: ast.Call, other: str, scope: str, statement: ast.AST) -> Site:
    call = ast.Call(ast.Name(other, ast.Load()), node.args, node.keywords)
    return Site(node, scope, statement, f"-> {other}", call)


def _drop_keyword(node: ast.Call, index: int, scope: str, statement: ast.AST) -> Site:
    kept = [*node.keywords[:index], *node.keywords[index + 1 :]]
    change = f"without {node.keywords[index].arg}="
    return Site(node, scope, statement, change, ast.Call(node.func, node.args, kept))


def shorten(statement: ast.AST) -> str:
    """Give the first line of a statement."""
    return ast.unparse(statement).splitlines()[0][:100]
