"""What Prometheus is told: requests, jobs by outcome, what they took, the queue, dependencies, discs and the room that
is left. No accession number, no patient.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mkiso import errors
from mkiso.config.storage import Storage
from mkiso.storage.kept_reports import Counts, KeptReports
from mkiso.study.question import KINDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(("GET", "HEAD", "POST"))
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900)
_NEVER = {(kind, "failed", each.code): 0 for kind in KINDS for each in errors.kinds()}
"""What is told of failures that no job had: Prometheus sees no change where a value begins with the first one."""
_NEVER_STARTED = {(kind, "starting"): 0 for kind in KINDS}


class Metrics:
    """The counters of one webhook process, in a registry of their own."""

    def __init__(self, kept: KeptReports) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "mkiso_http_requests", "HTTP requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "mkiso_http_request_seconds", "Until the last byte", ["route"], buckets=_BUCKETS, registry=self.registry
        )
        self._bytes = Counter("mkiso_http_response_bytes", "Bytes of answers sent", ["route"], registry=self.registry)
        self._kept = kept

    def count(self, route: str, method: str, status: int, seconds: float, sent: int) -> None:
        """One request; `route` is the pattern of the address, so that labels stay few whatever is asked."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes.labels(route).inc(sent)

    def text(self, storage: Storage, queued: int | None, well: Mapping[str, bool]) -> bytes:
        """The exposition: the counters, and what the disc store says now. `queued` is None where Prefect can't be
        asked; `well` says of each dependency whether it is.
        """
        now = CollectorRegistry()
        now.register(_Now(storage, queued, well, self._kept.counts()))
        return generate_latest(self.registry) + generate_latest(now)


@dataclass(frozen=True, eq=False)
class _Now(Collector):
    storage: Storage
    queued: int | None
    well: Mapping[str, bool]
    counts: Counts

    def collect(self) -> Iterator[Metric]:
        outcomes = (_NEVER | dict(self.counts.jobs)).items()
        yield _labelled("mkiso_jobs", "Jobs whose reports are kept, by outcome", ["kind", "status", "code"], outcomes)
        well = [((name,), is_well) for name, is_well in self.well.items()]
        yield _labelled("mkiso_dependency_up", "Whether /api/health says that it is well", ["dependency"], well)
        took = [(stage, seconds) for stage, _, seconds in self.counts.stages]
        yield _labelled("mkiso_stage_seconds", "Seconds that these jobs spent in each stage", ["kind", "stage"], took)
        came = _NEVER_STARTED | {stage: number for stage, number, _ in self.counts.stages}
        words = "How many of these jobs came to each stage"
        yield _labelled("mkiso_stage_jobs", words, ["kind", "stage"], came.items())
        sizes = list(_sizes(self.storage))
        free = min(
            shutil.disk_usage(place).free for place in (self.storage.data_dir, self.storage.discs_dir) if place.exists()
        )
        least = self.storage.min_free_gib * 2**30
        told = [
            ("mkiso_instances_received", "Instances that these jobs received", self.counts.received),
            ("mkiso_received_bytes", "Bytes that these jobs received", self.counts.received_bytes),
            ("mkiso_discs", "Discs in the store", len(sizes)),
            ("mkiso_discs_bytes", "Bytes of the discs in the store", sum(sizes)),
            ("mkiso_storage_free_bytes", "Bytes that are free where data and discs lie", free),
            ("mkiso_storage_min_free_bytes", "Bytes below which new jobs are refused", least),
            ("mkiso_orchestrator_up", "Whether Prefect's API answers", self.queued is not None),
        ]
        if self.queued is not None:
            told.append(("mkiso_jobs_queued", "Jobs that wait for a worker", self.queued))
        for name, words, value in told:
            yield GaugeMetricFamily(name, words, value=value)


def _labelled(
    name: str, words: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=labels)
    for labelled, value in sorted(values):
        family.add_metric(labelled, value)
    return family


def _sizes(storage: Storage) -> Iterator[int]:
    for image in storage.discs_dir.glob("[!.]*/disc.*"):
        try:
            yield image.stat().st_size
        except FileNotFoundError:  # removed meanwhile
            continue
