"""The day of a hospital group: clerks of many sites and an archive at one front with several machines, a working day's
arrivals in compressed time; then more questions at once than there is room for.

    python -m bench.group                                                        # what two cores carry
    python -m bench.group --webhooks 6 --workers 12 --jobs 5000 --minutes 60     # a group's day in an hour

Every disc's bytes are hashed and compared with the promised SHA-256, every other answer has to give a reason, and
nothing that was accepted may be without either. The seed decides who asks for what and when, the same in each run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.fleet import Fleet
from bench.laboratory import Laboratory
from bench.machine import Say
from bench.page import table
from bench.samples import Row, Sample, within
from bench.working_day import (
    BURST,
    DAYS,
    HOURS,
    NIGHT,
    Answer,
    Hospital,
    Measured,
    Question,
    Size,
    measured,
    part95,
    plan,
    quiet_times,
)

SLOW, HEALTH = 2, 0.2
IDLE_SECONDS = 30


def group_rows(laboratory: Laboratory) -> Iterator[Row]:
    """The day that two cores carry."""
    return day_rows(Size(), laboratory.new_folder("group"), laboratory.say)


def day_rows(size: Size, folder: Path, say: Say) -> Iterator[Row]:
    """What a group may expect, as rows; the report in words is said."""
    with Fleet(folder, size.webhooks, size.workers, size.orthancs, size.places, size.sites, say) as fleet:
        hospital = Hospital(size, fleet, folder / "studies")
        say(f"{size.jobs} questions are planned and their studies stored")
        questions = plan(size, hospital)
        for day in DAYS:
            for _ in range(size.archived):
                hospital.study(NIGHT, day)
        burst = [Question(0, n % size.sites, BURST, hospital.study(BURST)) for n in range(size.burst)]
        quiet = quiet_times(hospital, size.quiet, say)
        alone = hospital.ended(hospital.archive(DAYS[0]))
        say(f"nobody asks for {IDLE_SECONDS} s")
        before = fleet.processor()
        time.sleep(IDLE_SECONDS)
        idle = fleet.processor()
        idle.subtract(before)
        say(f"the day begins: {size.minutes:g} minutes")
        archiving = threading.Timer(60 * size.minutes / len(HOURS), lambda: ids.append(hospital.archive(DAYS[1])))
        ids: list[str] = []
        archiving.start()
        day_ = measured(hospital, questions)
        archiving.join()
        beside = hospital.ended(ids[0])
        say(f"{size.burst} questions at once")
        full = measured(hospital, burst, patient=False)
        yield from _rows(size, day_, quiet, full, alone, beside)
        for line in report(size, day_, quiet, full, alone, beside):
            say(line)
        for when, part in (("nobody asks", idle), ("the burst", full.processor)):
            say(f"processor seconds while {when}: " + ", ".join(f"{kind} {taken:.1f}" for kind, taken in part.items()))
        _say_errors(fleet, say)


def _rows(
    size: Size, day: Measured, quiet: Mapping[str, float], full: Measured, alone: dict[str, Any], beside: dict[str, Any]
) -> Iterator[Row]:
    of = f"{size.jobs} questions in {size.minutes:g} min, {size.workers} machines, {size.webhooks} webhooks"
    lost = [*day.lost(), *full.lost()]
    yield within("group-lost", f"jobs lost: {of}", Sample([len(lost)]), len(lost), 0, "none", unit="jobs")
    slower = Sample([each.seconds / quiet[each.question.kind] for each in day.discs()])
    words = "95 % of discs, request → last byte against the quiet time of their kind"
    yield within("group-discs", words, slower, part95(slower.values), SLOW, f"within {SLOW}×", unit="×")
    for key, part, when in (("day", day, "in the day"), ("burst", full, f"with {size.burst} questions at once")):
        health = Sample([look.seconds for look in part.looks if look.what == "health"])
        remark = f"95 %: {part95(health.values):.2f} s"
        words, goal = f"health {when}, the worst answer of a webhook", f"under {HEALTH} s"
        yield within(f"group-health-{key}", words, health, max(health.values), HEALTH, goal, remark=remark)
    others = [each for each in full.answers if each.status != 200 and not _is_refusal(each)]
    words = f"of {size.burst} questions at once: answered neither with a disc nor with queue_full and Retry-After"
    remark = f"{len(full.discs())} discs, {sum(map(_is_refusal, full.answers))} refused"
    yield within("group-full", words, Sample([len(others)]), len(others), 0, "none", unit="jobs", remark=remark)
    took = beside["total_run_time"] / alone["total_run_time"]
    words = f"the archive of {size.archived} studies in the day's morning, against the same alone"
    yield Row("group-archive", words, Sample([beside["total_run_time"]]), "", took)


def _is_refusal(answer: Answer) -> bool:
    return (answer.status, answer.code, bool(answer.retry_after)) == (503, "queue_full", True)


def report(
    size: Size, day: Measured, quiet: Mapping[str, float], full: Measured, alone: dict[str, Any], beside: dict[str, Any]
) -> Iterator[str]:
    """What the day was like, in words."""
    codes = Counter(f"{each.status} {each.code}".strip() for each in day.answers)
    yield f"{size}"
    yield f"answers of the day: {dict(codes)}; told to come back {sum(each.refused for each in day.answers)} times"
    yield f"answers of the burst: {dict(Counter(f'{each.status} {each.code}'.strip() for each in full.answers))}"
    for each in (*day.lost(), *full.lost()):
        yield f"LOST {each}"
    yield f"runs: {len(day.runs)} of {len({each.question.number for each in day.answers})} numbers"
    for kind in quiet:
        took = [each.seconds for each in day.discs() if each.question.kind == kind]
        if took:
            yield (
                f"{kind}: {len(took)} discs, quiet {quiet[kind]:.2f} s, in the day median {median(took):.2f} s, "
                f"95 % {part95(took):.2f} s, worst {max(took):.2f} s"
            )
    lines = [
        begun - each.began for each in day.discs() if (begun := day.runs.get(each.job_id, ("", 0.0))[1]) > each.began
    ]
    yield f"request → first line: median {median(lines):.2f} s, 95 % {part95(lines):.2f} s, worst {max(lines):.2f} s"
    began = min(each.began for each in day.answers)
    each_hour = 60 * size.minutes / len(HOURS)
    for hour, first in enumerate(HOURS):
        here = [each for each in day.answers if hour <= (each.began - began) / each_hour < hour + 1]
        slow = [each.seconds / quiet[each.question.kind] for each in here if each.status == 200]
        looks_ = [look for look in day.looks if hour <= (look.moment - began) / each_hour < hour + 1]
        waiting = [look.waiting for look in looks_ if look.waiting is not None]
        health = [look.seconds for look in looks_ if look.what == "health"]
        if slow and health:
            yield (
                f"{first:2}-{first + 1}: {len(here)} questions, median {median(slow):.1f}×, 95 % {part95(slow):.1f}× "
                f"the quiet time, at most {max(waiting, default=0):.0f} waiting, health at most {max(health):.2f} s"
            )
    for part, when in ((day, "day"), (full, "burst")):
        for what in ("health", "counter page", "list of jobs", "metrics"):
            sample = [look.seconds for look in part.looks if look.what == what]
            spread = f"median {median(sample):.3f} s, 95 % {part95(sample):.3f} s, worst {max(sample):.3f} s"
            yield f"{when}, {what}: {spread}"
        bad = Counter(look.status for look in part.looks if look.status != 200)
        waiting = [look.waiting for look in part.looks if look.waiting is not None]
        yield f"{when}: at most {max(waiting, default=0):.0f} jobs waiting; looks without 200: {dict(bad)}"
    done = len(day.runs)
    ours = {kind: seconds for kind, seconds in day.processor.items() if kind != "others"}
    yield (
        f"processor seconds a job ({done} runs in {day.seconds:.0f} s): {sum(ours.values()) / done:.2f}; "
        + ", ".join(f"{kind} {seconds / done:.2f}" for kind, seconds in Counter(ours).most_common())
        + f"; others on this computer took {day.processor['others']:.0f} s in all"
    )
    yield "memory at most, MB (PSS): " + ", ".join(f"{kind} {mb:.0f}" for kind, mb in day.memory.most_common())
    yield (
        f"PostgreSQL: {day.database_mb:.0f} MB, {day.transactions / done:.0f} transactions a job, "
        f"{day.transactions / day.seconds:.0f} a second"
    )
    for run, when in ((alone, "alone"), (beside, "in the day")):
        yield f"archive of {size.archived} studies {when}: {run['total_run_time']:.0f} s, {run['state']['message']}"


def _say_errors(fleet: Fleet, say: Say) -> None:
    """What the processes logged as errors, counted."""
    told: Counter[str] = Counter()
    for name, log in fleet.logs():
        for line in log.splitlines():
            if '"level": "ERROR"' in line or '"level": "WARNING"' in line or line.startswith("Traceback"):
                words = line.split('"message": ', 1)[-1][:160]
                told[f"{name.rpartition('-')[2]}: {''.join('#' if sign.isdigit() else sign for sign in words)}"] += 1
    for words, count in told.most_common(25):
        say(f"logged {count} x {words}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.group", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for each in fields(Size):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    size = replace(Size(), **vars(parser.parse_args()))
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {words}", flush=True)

    with tempfile.TemporaryDirectory(prefix="mkiso-group-") as folder:
        print(table(list(day_rows(size, Path(folder), say))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
