"""Earlier studies of a patient, found in real archives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread

from mkiso.config.disc import Identity, Priors
from mkiso.config.settings import Settings
from mkiso.errors import PacsUnreachable
from mkiso.sources.choosing import found_together
from mkiso.sources.priors import FoundPriors, find_priors
from mkiso.sources.query import find_studies
from mkiso.sources.registry import sources_of
from mkiso.sources.several import find_everywhere
from mkiso.study import gate
from mkiso.study.selection import Selection
from mkiso.study.values import Found
from peers.corpus import PLAIN, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc
from tests.sources.test_several import Named
from tests.sources.test_source import FolderSource

MakeSettings = Callable[..., Settings]
RULE = Priors(count=2)


def marked(files: list[Path], **attributes: str) -> list[Path]:
    """The same files with these attributes."""
    for file in files:
        dataset = dcmread(file)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    return files


def studies(folder: Path) -> list[Path]:
    """P1 and P2 to P8, which are and aren't earlier ones of it."""

    def one(number: str, date: str, *, patient_id: str = "", kind: str = "ct", **attributes: str) -> list[Path]:
        told = {"IssuerOfPatientID": "NORTH", "BodyPartExamined": "CHEST", **attributes}
        files = make_study(folder, number, patient_id, patient=PLAIN, kinds={kind: 2, "sr": 1}, study_date=date)
        return marked(files, **told)

    return [
        *one("P1", "20240229"),
        *one("P2", "20230101"),
        *one("later", "20250101"),
        *one("no part", "20220101", BodyPartExamined=""),
        *one("mr", "20210101", kind="mr"),
        *one("namesake", "20230601", patient_id="HN-9"),
        *one("south", "20230701", IssuerOfPatientID="SOUTH"),
        *one("P8", "20200101"),
        *one("P9", "20190101"),
    ]


def found_with(settings: Settings, *numbers: str, rule: Priors = RULE, rules: Identity | None = None) -> FoundPriors:
    asked: list[str] = []
    sources = sources_of(settings)
    found = found_together(
        numbers, [find_everywhere(sources, number) for number in numbers], [], settings.identity, Selection(priors=True)
    )
    told = find_priors(sources, found, rule, rules or settings.identity, asked.append)
    assert asked == [found.studies[0].patient_id]
    return told


def numbers_of(found: Found) -> Sequence[str]:
    return [study.accession_number for study in found.priors]


def reasons(told: FoundPriors, files: Sequence[Path]) -> dict[str, str]:
    """Why each is none, by its accession number."""
    headers = [dcmread(file, specific_tags=["StudyInstanceUID", "AccessionNumber"]) for file in files]
    numbers = {str(header.StudyInstanceUID): str(header.AccessionNumber) for header in headers}
    return {numbers[uid]: why for uid, why in told.choice.not_taken.items()}


def test_orthanc_tells_all_that_the_rule_needs(settings_for: MakeSettings, tmp_path: Path) -> None:
    files = studies(tmp_path / "studies")
    with Orthanc(tmp_path / "pacs") as pacs:
        pacs.store(files)
        told = found_with(settings_for(pacs), "P1")
        assert numbers_of(told.found) == ["P2", "P8"]
        assert [study.expected.count for study in told.found.priors] == [3, 3]
        assert told.found.degraded == ("priors_unknown",)  # of one nobody knows what it shows
        assert reasons(told, files) == {
            "later": "not earlier",
            "no part": "kind not told",
            "mr": "other kind",
            "south": "other patient",
            "P9": "enough",
        }
        anything = found_with(settings_for(pacs), "P1", rule=Priors(count=9, modality="any", body_part="any"))
        assert numbers_of(anything.found) == ["P2", "no part", "mr", "P8", "P9"]
        assert anything.found.degraded == ()
        assert numbers_of(found_with(settings_for(pacs), "P1", "P2").found) == ["P8", "P9"]
        cut = found_with(settings_for(pacs, find_limit=7), "P1")
        assert (numbers_of(cut.found), cut.found.degraded) == ([], ("priors_unknown",))
        assert "is cut" in cut.reasons[0]


def test_dcmqrscp_tells_no_body_part_so_none_is_taken_by_it(settings_for: MakeSettings, tmp_path: Path) -> None:
    files = studies(tmp_path / "studies")
    with Dcmqrscp(tmp_path / "pacs", files) as pacs:
        told = found_with(settings_for(pacs), "P1")
        assert (numbers_of(told.found), told.found.degraded) == ([], ("priors_unknown",))
        assert reasons(told, files)["P2"] == "kind not told"
        told = found_with(settings_for(pacs), "P1", rule=Priors(count=3, body_part="any"))
        assert (numbers_of(told.found), told.found.degraded) == (["P2", "no part", "P8"], ())
        assert reasons(told, files) == {
            "later": "not earlier",
            "south": "other patient",
            "mr": "other kind",
            "P9": "enough",
        }


def test_an_id_that_a_pacs_takes_for_a_wildcard_is_not_asked_for(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", "HN*1") + make_study(tmp_path, "A2", "HN*1", study_date="20200101")
    found = gate.found(("A1",), find_studies(FolderSource(files), "A1"), [], Identity(), degraded=False)
    told = find_priors([FolderSource(files)], found, RULE, Identity(), lambda _: None)
    assert (told.found.studies, told.found.degraded) == (found.studies, ("priors_unknown",))


def test_a_prior_that_no_source_holds_wholly_is_left_out(tmp_path: Path) -> None:
    asked, old = make_study(tmp_path, "A1"), make_study(tmp_path, "A2", study_date="20200101", kinds={"ct": 3})
    older = make_study(tmp_path, "A3", study_date="20190101", kinds={"ct": 2})
    sources = [
        Named("one", [*asked, *old[:2], *older], patient_domain="x"),
        Named("two", [*asked, *old[1:], *older], patient_domain="x"),
    ]
    found = found_together(("A1",), [find_everywhere(sources, "A1")], [], Identity())
    told = find_priors(sources, found, Priors(count=2, body_part="any"), Identity(), lambda _: None)
    assert numbers_of(told.found) == ["A3"]
    assert told.found.degraded == ("prior_left_out:incomplete",)
    assert [study.is_prior for study in told.found.studies] == [False, True]
    assert told.found.fingerprint != found.fingerprint


def test_what_a_source_that_is_down_may_have_is_told(tmp_path: Path) -> None:
    asked, old = make_study(tmp_path, "A1"), make_study(tmp_path, "A2", study_date="20200101", kinds={"ct": 3})
    sources = [Named("one", [*asked, *old]), Named("two", error=PacsUnreachable("It is down."))]
    found = found_together(("A1",), [find_everywhere(sources, "A1")], [], Identity())
    told = find_priors(sources, found, Priors(count=2, body_part="any"), Identity(), lambda _: None)
    assert numbers_of(told.found) == ["A2"]
    assert told.found.degraded == ("source_down:two", "priors_unknown")
