"""Coverage-guided fuzzing of everything that the receiver reads of a peer, with atheris (libFuzzer).

    python -m fuzzing --minutes 10                   # make fuzz: every target, one after another, this long each
    python -m fuzzing --target data_set --minutes 60

The targets, and what must hold in each, are in `fuzzing/targets.py`. Each runs in a process of its own, since
atheris never returns, from seeds that the tests' own encoders make. A target ends early at its first finding: an
exception that isn't the code's to raise, two readings that differ, more than RUN_SECONDS or MEMORY_MB. Its input is
printed in hexadecimal, with the traceback. Exits 1 after one, 2 without atheris.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

TARGETS = "fuzzing.targets"
INSTRUMENTED = ("mkiso", "pynetdicom")
RUN_SECONDS = 5  # of one input; the longest take some milliseconds
MEMORY_MB = 512
START_SECONDS = 60  # a child's imports, instrumented, on a busy machine
MEMORY_DISK = Path("/dev/shm")  # several files an input: ten times as many inputs as on a disk


@dataclass
class Outcome:
    """What became of one target; a finding is its input and the end of what was printed about it."""

    target: str
    seconds: float
    executions: int = 0
    coverage: int = 0
    features: int = 0
    peak_mb: int = 0
    findings: list[tuple[str, bytes, str]] = field(default_factory=list)


def fuzz(name: str, seconds: int, targets: str = TARGETS, *, executions: int = -1) -> Outcome:
    """Run one target of a module for so long in a process of its own, or for so many executions where that is sooner;
    -1: only the time counts.
    """
    target = import_module(targets).TARGETS[name]
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as place:
        corpus, found = Path(place, "corpus"), Path(place, "found")
        corpus.mkdir()
        found.mkdir()
        for seed in target.seeds():
            (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed[: target.max_bytes])
        words = Path(place, "words")
        words.write_text(
            "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words), encoding="ascii"
        )
        arguments = [
            f"-max_total_time={seconds}", f"-runs={executions}", f"-max_len={target.max_bytes}",
            f"-timeout={RUN_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={found}/", f"-dict={words}", "-use_value_profile=1", "-print_final_stats=1", str(corpus),
        ]  # fmt: skip
        began = time.monotonic()
        # Through a shell that forks: Linux lets a process that is executed inherit the peak of memory of the one that
        # it replaces (getrusage(2), ru_maxrss), and libFuzzer would take ours for the target's.
        command = ["sh", "-c", '"$@"; exit $?', "sh"]
        command += [sys.executable, "-m", "fuzzing", "--child", targets, name, *arguments]
        try:
            process = subprocess.run(
                command, env={**os.environ, "TMPDIR": place}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=seconds + START_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            outcome = Outcome(name, time.monotonic() - began)
            outcome.findings = [("doesn't end", b"", (error.stdout or b"").decode(errors="replace")[-4000:])]
            return outcome
        said = process.stdout.decode(errors="replace")
        outcome = Outcome(name, time.monotonic() - began, *_figures(said))
        inputs = [file for file in sorted(found.iterdir()) if not file.name.startswith("slow-unit")]
        outcome.findings = [(file.name, file.read_bytes(), _reason(said)) for file in inputs]
        if process.returncode and not outcome.findings:
            outcome.findings.append(("no input", b"", said[-4000:]))
        return outcome


def _figures(said: str) -> tuple[int, int, int, int]:
    """Executions, coverage, features and the peak of memory, from libFuzzer's last words."""
    last = [*re.finditer(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", said, re.MULTILINE)]
    peak = re.findall(r"stat::peak_rss_mb:\s+(\d+)|rss: (\d+)Mb", said)
    executions, coverage, features = map(int, last[-1].groups()) if last else (0, 0, 0)
    return executions, coverage, features, max((int(figure) for pair in peak for figure in pair if figure), default=0)


def _reason(said: str) -> str:
    """The traceback, or libFuzzer's own words."""
    begins = [said.find(words) for words in ("=== Uncaught Python exception", "ERROR: libFuzzer") if words in said]
    return said[min(begins) :][:4000] if begins else said[-4000:]


def _serve(targets: str, name: str, arguments: list[str]) -> None:
    """Become libFuzzer. What is fuzzed is imported here and nowhere before, so that it is instrumented."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        run = import_module(targets).TARGETS[name].run
    warnings.simplefilter("ignore")
    logging.disable()
    # As Python ends, a signal that has a handler gets its default action back, which is the process's end: libFuzzer's
    # own clock would end it before its finding is written down.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


def table(outcomes: Iterable[Outcome]) -> str:
    """The figures as docs/reliability.md has them."""
    rows = [
        f"| `{each.target}` | {each.executions:,} | {each.seconds:.0f} | {each.coverage:,} | {each.features:,} | "
        f"{each.peak_mb} "
        f"| {len(each.findings)} |"
        for each in outcomes
    ]
    return "\n".join(
        (
            "| target | executions | seconds | coverage | features | peak MiB | findings |",
            "|---|---|---|---|---|---|---|",
            *rows,
        )
    )


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        _serve(sys.argv[2], sys.argv[3], sys.argv[4:])
    if importlib.util.find_spec("atheris") is None:
        print(
            "atheris isn't installed here: it is in the extra `test` where it has a wheel (x86_64, Python before "
            "3.14).",
            file=sys.stderr,
        )
        return 2
    targets = import_module(TARGETS).TARGETS
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description="Fuzz what the receiver reads of a peer.")
    parser.add_argument(
        "--target",
        nargs="+",
        choices=targets,
        default=list(targets),
        metavar="NAME",
        help=f"only these: {', '.join(targets)}",
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long each target runs (10)")
    arguments = parser.parse_args()
    outcomes = []
    for name in arguments.target:
        outcomes.append(fuzz(name, max(1, int(60 * arguments.minutes))))
        print(table(outcomes[-1:]).splitlines()[-1], flush=True)
        for kind, data, words in outcomes[-1].findings:
            print(f"{name}: {kind}, input {data.hex() or 'empty'}\n{words}", flush=True)
    print("", table(outcomes), sep="\n")
    return 1 if any(each.findings for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
