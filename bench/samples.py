"""What the benchmark counts: repeated measurements of one thing, and the rows that compare two of them with a goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Sample:
    """Repeated measurements; `peak_mb` is the most memory that any one of its processes ever had."""

    values: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def add(self, value: float, peak_mb: float = 0.0) -> None:
        self.values.append(value)
        self.peak_mb = max(self.peak_mb, peak_mb)

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def scaled(self, factor: float) -> Sample:
        """What a part of the work took, for all of it."""
        return Sample([value * factor for value in self.values], self.peak_mb)

    def plus(self, others: Iterable[Sample]) -> Sample:
        """This, and after it the others: run by run, medians of those that have other counts."""
        total = Sample(list(self.values), self.peak_mb)
        for other in others:
            same = len(other.values) == len(total.values)
            total.values = [
                value + (other.values[number] if same else other.median) for number, value in enumerate(total.values)
            ]
            total.peak_mb = max(total.peak_mb, other.peak_mb)
        return total


@dataclass(frozen=True)
class Row:
    """One row of the table. `ratio` is what the goal speaks of, and `least` or `most` its bound; the plot has rows with
    a reference.
    """

    key: str
    case: str
    ours: Sample
    goal: str
    ratio: float
    least: float | None = None
    most: float | None = None
    reference: Sample | None = None
    unit: str = "s"
    remark: str = ""

    @property
    def verdict(self) -> str:
        """In a word; empty where the row has no goal."""
        return ("met" if self.is_met else "missed") if self.goal else ""

    @property
    def is_met(self) -> bool:
        return (self.least is None or self.ratio >= self.least) and (self.most is None or self.ratio <= self.most)


def faster(key: str, case: str, ours: Sample, reference: Sample, least: float, remark: str = "") -> Row:
    """A row whose goal is to be `least` times faster than the reference, by medians."""
    goal = f"{least:g}× faster" if least > 1 else "not slower" if least == 1 else f"at most {1 / least:.1f}× its time"
    return Row(key, case, ours, goal, reference.median / ours.median, least=least, reference=reference, remark=remark)


def beside(key: str, case: str, ours: Sample, reference: Sample, remark: str = "") -> Row:
    """A row without a goal, for comparison."""
    return Row(key, case, ours, "", reference.median / ours.median, reference=reference, remark=remark)


def within(
    key: str, case: str, ours: Sample, value: float, most: float, goal: str, *, unit: str = "s", remark: str = ""
) -> Row:
    """A row whose goal is a bound by itself."""
    return Row(key, case, ours, goal, value, most=most, unit=unit, remark=remark)
