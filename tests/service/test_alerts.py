"""When Prometheus alerts somebody: promtool judges the rules by what /metrics tells, minute by minute."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mkiso.config.storage import Storage
from mkiso.errors import (
    MkisoError,
    PacsUnreachable,
    ProofFailed,
    PublisherUnavailable,
    StorageUnreadable,
    StudyNotFound,
    Unforeseen,
)
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.report_files import report_folders
from mkiso.study.question import Kind
from mkiso_service.webhook.metrics import Metrics

pytestmark = pytest.mark.peer

RULES = Path(__file__).parents[2] / "deployments" / "monitoring" / "alerts.yaml"
WEBHOOKS = ("front1:8080", "front2:8080")


class Site:
    """Two webhooks on one storage, and what Prometheus has of them: for each series a value, or none, a minute."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.storage = Storage(data_dir=folder, min_free_gib=0)
        self.metrics = Metrics(KeptReports(self.storage))
        self.queued: int | None = 0
        self.well = {"pacs": True, "schedules": True}
        self.up = True
        self.now = 0
        self.series: defaultdict[str, dict[int, float]] = defaultdict(dict)

    def pass_minutes(self, minutes: int) -> None:
        text = self.metrics.text(self.storage, self.queued, self.well).decode()
        families = text_string_to_metric_families(text)
        told = (
            [(each.name, each.labels, each.value) for family in families for each in family.samples] if self.up else []
        )
        for name, labels, value in (*told, ("up", {}, float(self.up))):
            for webhook in WEBHOOKS:
                named = {**labels, "job": "mkiso", "instance": webhook}
                words = ",".join(f'{label}="{word}"' for label, word in sorted(named.items()))
                for minute in range(self.now, self.now + minutes):
                    self.series[f"{name}{{{words}}}"][minute] = value
        self.now += minutes

    def job(self, error: MkisoError | None = None, kind: Kind = "download") -> None:
        report = JobReport(str(uuid4()), kind, ("A1",), seconds={"starting": 0.1})
        write_report(self.storage, report.failed(error) if error else report)

    def forget_reports(self) -> None:
        for folder in report_folders(self.storage):
            for file in Path(folder.path).rglob("*.json"):
                file.unlink()
        self.metrics = Metrics(KeptReports(self.storage))

    def alerts(self, folder: Path, expected: Collection[str]) -> None:
        """What fires in the last minute is this, as promtool says."""
        values = [
            {"series": name, "values": " ".join(str(told.get(minute, "_")) for minute in range(self.now))}
            for name, told in self.series.items()
        ]
        firing = {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
            "eval_time": f"{self.now - 1}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)],
        }
        judged = {
            "rule_files": [str(RULES)],
            "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": values, "promql_expr_test": [firing]}],
        }
        file = folder / "judged.yaml"
        file.write_text(yaml.safe_dump(judged))
        ended = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "data")


def test_a_quiet_day_alerts_nobody(site: Site, tmp_path: Path) -> None:
    for error in (ProofFailed("x"), PacsUnreachable("x"), PacsUnreachable("x"), PacsUnreachable("x")):
        site.job(error)
    for _ in range(6):
        site.job()
        site.job(StudyNotFound("x"))
        site.queued = 1
        site.pass_minutes(10)
    site.alerts(tmp_path, [])


@pytest.mark.parametrize("error", [ProofFailed("x"), Unforeseen("x"), StorageUnreadable("x")])
def test_the_first_job_of_which_mkiso_or_its_disk_is_the_fault_alerts(
    site: Site, tmp_path: Path, error: MkisoError
) -> None:
    site.pass_minutes(70)
    site.job(error)
    site.pass_minutes(2)
    site.alerts(tmp_path, ["MkisoProofFailed"])


def test_old_reports_that_go_hide_no_failure_and_are_none(site: Site, tmp_path: Path) -> None:
    for _ in range(5):
        site.job(PacsUnreachable("x"))
        site.job(ProofFailed("x"))
    site.pass_minutes(70)
    site.forget_reports()
    site.pass_minutes(5)
    site.alerts(tmp_path, [])


@pytest.mark.parametrize("failures", [2, 3])
def test_three_failures_alert_and_two_seen_by_two_webhooks_do_not(site: Site, tmp_path: Path, failures: int) -> None:
    site.pass_minutes(30)
    for _ in range(failures):
        site.job(PacsUnreachable("x"))
        site.job(PublisherUnavailable("x"), "print")
        site.pass_minutes(3)
    site.alerts(tmp_path, ["MkisoPacsErrors", "MkisoPublisherErrors"] if failures == 3 else [])


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("starts", [False, True])
def test_a_queue_of_which_no_job_starts_alerts(site: Site, tmp_path: Path, starts: bool, before: int) -> None:
    for _ in range(before):
        site.job()
    site.pass_minutes(30)
    site.queued = 2
    site.pass_minutes(10)
    if starts:
        site.job()
    site.pass_minutes(8)
    site.alerts(tmp_path, [] if starts else ["MkisoQueueStands"])


def test_a_queue_whose_jobs_start_alerts_nobody_though_more_old_reports_go(site: Site, tmp_path: Path) -> None:
    for _ in range(30):
        site.job()
    site.pass_minutes(30)
    site.queued = 2
    for minute in range(20):
        if minute == 10:
            site.forget_reports()
        site.job()
        site.pass_minutes(1)
    site.alerts(tmp_path, [])


def test_a_dependency_that_stays_away_alerts(site: Site, tmp_path: Path) -> None:
    site.pass_minutes(5)
    site.well["schedules"] = False
    site.pass_minutes(14)
    site.alerts(tmp_path, [])
    site.pass_minutes(2)
    site.alerts(tmp_path, ["MkisoDependencyDown"])


def test_a_disk_that_takes_nothing_alerts_at_once(site: Site, tmp_path: Path) -> None:
    site.well["disk"] = True
    site.pass_minutes(5)
    site.well["disk"] = False
    site.pass_minutes(7)
    site.alerts(tmp_path, ["MkisoDiskUnusable"])


def test_a_webhook_or_a_prefect_that_does_not_answer_alerts(site: Site, tmp_path: Path) -> None:
    site.pass_minutes(5)
    site.queued = None
    site.pass_minutes(3)
    site.alerts(tmp_path, ["MkisoOrchestratorDown"])
    site.queued = 0
    site.pass_minutes(1)
    site.up = False
    site.pass_minutes(3)
    site.alerts(tmp_path, ["MkisoDown"])
