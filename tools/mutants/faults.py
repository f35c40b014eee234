"""Find the faults that can be planted in a module, and give its source with one of them."""

import ast
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tools.mutants.further import walk_further
from tools.mutants.operators import walk


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Args:
        module: path of the file, from the project's root.
        scope: qualified name of the function or class that holds it; empty at the top of the module.
        line: where the statement that holds it begins; a test covers the fault if it runs this line.
        code: the expression or statement as it is, on one line.
        change: what is done to it.
        number: which of the module's faults it is, for `plant`; further kinds come after the others.
    """

    module: str
    scope: str
    line: int
    code: str
    change: str
    number: int

    @property
    def key(self) -> str:
        """Names the fault independently of line numbers."""
        return f"{self.module}::{self.scope}::{self.code}::{self.change}"


def find_mutants(path: Path, root: Path, *, further: bool = False) -> list[Mutant]:
    """List the faults that can be planted in this file, in the order of its lines.

    Args:
        further: those of `tools/mutants/further.py`, instead of those of `tools/mutants/operators.py`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sites, before = list(walk(tree)), 0
    if further:
        before = len(sites)
        sites = list(walk_further(tree))
    found = []
    for number, site in enumerate(sites, before):
        code = " ".join(ast.unparse(site.node).split())
        line = getattr(site.statement, "lineno", 1)
        found.append(Mutant(str(path.relative_to(root)), site.scope, line, code[:160], site.change, number))
    return found


def plant(path: Path, number: int) -> ast.Module:
    """Give the tree of this file with one fault in it: the one that `find_mutants` gave this number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    site = next(islice(chain(walk(tree), walk_further(tree)), number, None))
    _Replace(site.node, site.replacement).visit(tree)
    return ast.fix_missing_locations(tree)


class _Replace(ast.NodeTransformer):
    """Put one node in the place of another, which is found by identity."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self.replacement if node is self.target else self.generic_visit(node)
