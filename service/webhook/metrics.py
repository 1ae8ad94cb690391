"""What Prometheus is told: requests, jobs by outcome, the queue, discs and the room that is left. No accession number, no patient."""

from __future__ import annotations

import shutil
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mkiso.config import Storage
from mkiso.errors import JobNotFound
from mkiso.report import JobReport, read_report
from mkiso.store import manifests

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(("GET", "HEAD", "POST"))
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900)


class Metrics:
    """The counters of one webhook process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("mkiso_http_requests", "HTTP requests answered", ["route", "method", "status"], registry=self.registry)
        self._seconds = Histogram("mkiso_http_request_seconds", "Until the last byte", ["route"], buckets=_BUCKETS, registry=self.registry)
        self._bytes = Counter("mkiso_http_response_bytes", "Bytes of answers sent", ["route"], registry=self.registry)

    def count(self, route: str, method: str, status: int, seconds: float, sent: int) -> None:
        """One request; `route` is the pattern of the address, so that labels stay few whatever is asked."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes.labels(route).inc(sent)

    def text(self, storage: Storage, queued: int | None) -> bytes:
        """The exposition: the counters, and what the disc store says now. `queued` is None where Prefect can't be asked."""
        now = CollectorRegistry()
        now.register(_Store(storage, queued))
        return generate_latest(self.registry) + generate_latest(now)


@dataclass(frozen=True, slots=True)
class _Store(Collector):
    storage: Storage
    queued: int | None

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("mkiso_jobs", "Jobs whose reports are kept, by outcome", labels=["kind", "status", "code"])
        kept = reports(self.storage)
        outcomes = Tally((report.kind, report.status, str(report.error.get("code", ""))) for report in kept)
        for labels, count in sorted(outcomes.items()):
            jobs.add_metric(labels, count)
        yield jobs
        yield GaugeMetricFamily("mkiso_instances_received", "Instances that these jobs received", value=sum(report.received for report in kept))
        discs = list(manifests(self.storage))
        yield GaugeMetricFamily("mkiso_discs", "Discs in the store", value=len(discs))
        yield GaugeMetricFamily("mkiso_discs_bytes", "Bytes of the discs in the store", value=sum(disc.size for disc in discs))
        free = shutil.disk_usage(self.storage.data_dir).free
        yield GaugeMetricFamily("mkiso_storage_free_bytes", "Bytes that are free under storage.data_dir", value=free)
        yield GaugeMetricFamily("mkiso_storage_min_free_bytes", "Bytes below which new jobs are refused", value=self.storage.min_free_gib * 2**30)
        yield GaugeMetricFamily("mkiso_orchestrator_up", "Whether Prefect's API answers", value=self.queued is not None)
        if self.queued is not None:
            yield GaugeMetricFamily("mkiso_jobs_queued", "Jobs that wait for a worker", value=self.queued)


def reports(storage: Storage) -> list[JobReport]:
    """Every report that is kept."""
    found = []
    for file in storage.reports_dir.glob("*.json"):
        try:
            found.append(read_report(storage, file.stem))
        except JobNotFound:  # removed meanwhile
            continue
    return found
