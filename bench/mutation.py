"""Mutation testing: change the program in one place at a time and see whether a test notices.

    python -m bench.mutation                        # the modules that decide whether a disc leaves (TARGETS), some
                                                    minutes a module
    python -m bench.mutation mkiso/study/identity.py      # one of them

Each mutant is tried in a fork of this process, on a copy of the checkout, with the tests of its module. What survives
is printed as a diff; the words of errors are not mutated. docs/reliability.md explains the survivors that are left.
"""

from __future__ import annotations

import ast
import copy
import difflib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

TARGETS = {
    "mkiso/sources/move_outcome.py": ["tests/sources/test_move_outcome.py"],
    "mkiso/study/identity.py": ["tests/study/test_identity.py"],
    "mkiso/study/gate.py": ["tests/study/test_gate.py"],
    "mkiso/media/disc_set.py": [
        "tests/study/test_gate.py",
        "tests/media/test_disc_set.py",
        "tests/media/test_seen.py",
        "tests/media/test_reports.py",
    ],
    "mkiso/formats/proven_set.py": ["tests/media/test_disc_set.py", "tests/tasks/test_print_steps.py"],
    "mkiso/study/completeness.py": ["tests/study/test_completeness.py"],
    "mkiso/study/selection.py": ["tests/study/test_selection.py"],
    "mkiso/inboxes/deciding.py": ["tests/inboxes/test_deciding.py"],
    "mkiso/formats/proof.py": ["tests/formats/test_verify.py"],
    "mkiso/publishers/orderbook.py": ["tests/publishers/test_order_book.py"],
    "mkiso_service/worker/admission.py": ["tests/service/test_admission.py"],
}
LIMIT_SECONDS = 120
OTHER_COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.RShift: ast.LShift,
    ast.LShift: ast.RShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def mutants(source: str) -> Iterator[tuple[int, str]]:
    """Every mutant of a module as (line, source)."""
    tree = ast.parse(source)
    declared = _declarations(tree)
    for number, original in enumerate(ast.walk(tree)):
        for choice in range(3 * (original not in declared)):
            mutant = copy.deepcopy(tree)
            node = list(ast.walk(mutant))[number]
            if not isinstance(node, ast.expr | ast.stmt) or not _mutate(node, choice):
                break
            yield node.lineno, ast.unparse(ast.fix_missing_locations(mutant))


def _declarations(tree: ast.AST) -> set[ast.AST]:
    """Annotations and decorators: what they say is held by mypy."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        for part in (
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", ()),
        ):
            found |= set(ast.walk(part)) if part is not None else set()
    return found


def _mutate(node: ast.AST, choice: int) -> bool:
    """Change a node in place in its n-th way; whether it has one."""
    match node:
        case ast.Compare(ops=[operator]) if choice < len(others := OTHER_COMPARISON[type(operator)]):
            node.ops = [others[choice]()]
        case ast.BoolOp() if choice == 0:
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.BoolOp() if choice == 1:
            node.values = node.values[1:] + node.values[1:2] * (len(node.values) == 2)
        case ast.BoolOp() if choice == 2:
            node.values = node.values[:-1] + node.values[:1] * (len(node.values) == 2)
        case ast.UnaryOp(op=ast.Not()) if choice == 0:
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        case ast.BinOp(op=operator) if choice == 0 and type(operator) in OTHER_OPERATOR:
            node.op = OTHER_OPERATOR[type(operator)]()
        case ast.Constant(value=bool()) if choice == 0:
            node.value = not node.value
        case ast.Constant(value=int(value)) if choice == 0 and not isinstance(value, bool):
            node.value = value + 1
        case ast.If() | ast.While() | ast.IfExp() if choice < 2:
            node.test = ast.Constant(bool(choice))
        case ast.Return(value=ast.expr()) if choice == 0:
            node.value = ast.Constant(None)
        case ast.Raise() | ast.AugAssign() if choice == 0:
            node.__class__ = ast.Pass  # type: ignore[assignment]
        case ast.Expr(value=ast.Call()) if choice == 0:
            node.value = ast.Constant(None)
        case ast.ListComp(generators=[each]) | ast.SetComp(generators=[each]) if choice == 0 and len(each.ifs) == 1:
            each.ifs = []
        case _:
            return False
    return True


def killed(folder: Path, tests: list[str]) -> bool:
    """Whether the tests, run in a fork inside the copy, notice; a mutant that hangs is noticed too."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        import pytest

        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(io.StringIO()):
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={folder}", *tests])
        os._exit(int(code))
    deadline = time.monotonic() + LIMIT_SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1]) != 0


def main(names: list[str]) -> int:
    """Try every mutant of these modules; 1 where one survives."""
    import hypothesis
    import numpy
    import pydicom
    import pytest  # noqa: F401  all of them here once, not in each fork

    del hypothesis, numpy, pydicom
    survivors = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in ("mkiso", "tasks", "flows", "mkiso_service", "tests"):
            shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy("pyproject.toml", folder)
        for name in names or TARGETS:
            source = (folder / name).read_text(encoding="utf-8")
            plain = ast.unparse(ast.parse(source))
            assert not killed(folder, TARGETS[name]), f"the tests of {name} fail without a mutant"
            tried = 0
            for line, mutant in mutants(source):
                if mutant == plain:
                    continue
                tried += 1
                (folder / name).write_text(mutant, encoding="utf-8")
                if not killed(folder, TARGETS[name]):
                    survivors += 1
                    difference = difflib.unified_diff(plain.splitlines(), mutant.splitlines(), lineterm="", n=0)
                    print(f"{name}:{line} survives", *list(difference)[2:], sep="\n    ", flush=True)
            (folder / name).write_text(source, encoding="utf-8")
            print(f"{name}: {tried} mutants, {survivors} survivors so far", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
