"""Mutation testing: change the program in one place at a time and see whether a test notices.

    python -m bench.mutation                        # the modules that decide whether a disc leaves (TARGETS), some
                                                    minutes a module
    python -m bench.mutation mkiso/study/identity.py      # one of them
    python -m bench.mutation mkiso/study/identity.py:70   # what begins in one of its lines

Each mutant is tried in a fork of this process, on a copy of the checkout, with the tests of its module. What survives
is printed as a diff; the words of errors are not mutated. docs/reliability.md explains the survivors that are left.
"""

from __future__ import annotations

import ast
import difflib
import io
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from importlib.util import cache_from_source
from math import inf
from pathlib import Path

TARGETS = {
    "mkiso/study/gate.py": ["tests/study/test_gate.py", "tests/study/test_selection.py", "tests/media/test_priors.py"],
    "mkiso/study/identity.py": [
        "tests/study/test_identity.py",
        "tests/sources/test_choosing.py::test_a_patient_id_of_two_sources_is_one_patient_by_issuer_or_domain_alone "
        "tests/sources/test_choosing.py::test_what_nobody_has_wholly_or_two_have_of_two_patients_is_nobodys_disc",
    ],
    "mkiso/study/values.py": ["tests/study/test_selection.py", "tests/study/test_gate.py"],
    "mkiso/study/selection.py": ["tests/study/test_selection.py", "tests/study/test_priors.py"],
    "mkiso/study/priors.py": ["tests/study/test_priors.py"],
    "mkiso/study/completeness.py": ["tests/study/test_completeness.py"],
    "mkiso/media/disc_set.py": [
        "tests/media/test_disc_set.py",
        "tests/media/test_priors.py",
        "tests/study/test_gate.py::test_a_set_holds_each_image_once_on_discs_numbered_in_order "
        "tests/formats/test_cms.py::test_what_is_encrypted_is_divided_by_what_it_takes "
        "tests/media/test_explicit.py::test_a_disc_is_divided_by_the_room_that_converted_images_take "
        "tests/media/test_reports.py::test_a_disc_without_room_for_reports_holds_them_all_the_same_and_says_so "
        "tests/media/test_reports.py::test_what_is_said_of_other_discs_counts_reports_too",
        "tests/media/test_seen.py::test_a_disc_without_room_gets_fewer_pictures_and_says_so "
        "tests/media/test_seen.py::test_pictures_make_no_set_of_more_discs",
    ],
    "mkiso/formats/proven_set.py": ["tests/media/test_disc_set.py"],
    "mkiso/formats/proof.py": [
        "tests/formats/test_verify.py",
        "tests/formats/test_cms.py::test_an_image_that_changed_before_it_was_encrypted_is_not_proved "
        "tests/formats/test_cms.py::test_a_file_that_changed_after_it_came_is_not_encrypted_or_not_proved "
        "tests/formats/test_cms.py::test_an_envelope_that_holds_another_file_than_its_disc_says_is_not_proved",
    ],
    "mkiso/sources/move_outcome.py": ["tests/sources/test_move_outcome.py"],
    "mkiso/sources/several.py": ["-m 'not peer' tests/sources/test_several.py"],
    "mkiso/sources/choosing.py": ["tests/sources/test_choosing.py", "-m 'not peer' tests/sources/test_several.py"],
    "mkiso/inboxes/deciding.py": ["tests/inboxes/test_deciding.py"],
    "mkiso/publishers/orderbook.py": ["tests/publishers/test_order_book.py"],
    "mkiso_service/worker/admission.py": ["tests/service/test_admission.py"],
}
"""The tests of each module: one run after another until one fails."""
HANGS = 5  # times as long as without a mutant
OURS = ("mkiso", "tasks", "flows", "mkiso_service", "tests")
LOADED = "loaded.txt"
WITHOUT = [word for plugin in ("cacheprovider", "xdist") for word in ("-p", f"no:{plugin}")]
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
    for node in [each for each in ast.walk(tree) if isinstance(each, ast.expr | ast.stmt) and each not in declared]:
        kind, was = node.__class__, dict(node.__dict__)
        for choice in range(3):
            if not _mutate(node, choice):
                break
            mutant = ast.unparse(ast.fix_missing_locations(tree))
            node.__class__, node.__dict__ = kind, dict(was)
            yield node.lineno, mutant


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
            node.generators = [ast.comprehension(each.target, each.iter, [], each.is_async)]
        case _:
            return False
    return True


def killed(folder: Path, tests: str, limit_seconds: float = inf) -> bool:
    """Whether the tests, run in a fork inside the copy, notice; a mutant that hangs is noticed too."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            import pytest

            with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(io.StringIO()):
                code = int(pytest.main(["-x", "-q", *WITHOUT, f"--rootdir={folder}", *shlex.split(tests)]))
            (folder / LOADED).write_text("\n".join(sys.modules), encoding="utf-8")
        finally:
            os._exit(code)
    deadline = time.monotonic() + limit_seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1]) != 0


def load(folder: Path) -> None:
    """Import here once, and not in each fork, what isn't ours of what the last fork imported."""
    for name in (folder / LOADED).read_text(encoding="utf-8").splitlines():
        if name.partition(".")[0] not in (*OURS, "peers", "conftest", "__mp_main__"):
            with suppress(Exception):
                import_module(name)


def main(names: list[str]) -> int:
    """Try every mutant of these modules; 1 where one survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in OURS:
            shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy("pyproject.toml", folder)
        sys.path.insert(0, place)
        for name, _, only in (each.partition(":") for each in names or TARGETS):
            source = (folder / name).read_text(encoding="utf-8")
            plain = ast.unparse(ast.parse(source))
            sys.dont_write_bytecode = False
            limits: dict[str, float] = {}
            for tests in TARGETS[name]:
                begun = time.monotonic()
                assert not killed(folder, tests), f"{tests} fails without a mutant"
                limits[tests] = HANGS * (time.monotonic() - begun)
                load(folder)
            sys.dont_write_bytecode = True  # compiled as of the same second it would stand for the next mutant too
            Path(cache_from_source(str(folder / name))).unlink(missing_ok=True)
            tried = 0
            for line, mutant in mutants(source):
                if mutant == plain or only not in ("", str(line)):
                    continue
                tried += 1
                (folder / name).write_text(mutant, encoding="utf-8")
                if not any(killed(folder, tests, limit) for tests, limit in limits.items()):
                    survivors += 1
                    difference = difflib.unified_diff(plain.splitlines(), mutant.splitlines(), lineterm="", n=0)
                    print(f"{name}:{line} survives", *list(difference)[2:], sep="\n    ", flush=True)
            (folder / name).write_text(source, encoding="utf-8")
            print(f"{name}: {tried} mutants, {survivors} survivors so far", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
