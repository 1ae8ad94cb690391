"""Which earlier studies of a patient go beside those that are asked for."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from mkiso.config.disc import Identity, Priors
from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.errors import (
    ConfigurationError,
    InvalidRequest,
    JobStopped,
    MkisoError,
    NotConvertible,
    PacsBusy,
    PatientMismatch,
    StorageFull,
    StudyIncomplete,
    Unforeseen,
)
from mkiso.study.models import Patient, Series, Study
from mkiso.study.priors import (
    MOST_LOOKED_AT,
    NO_ROOM,
    WORDS,
    Kinds,
    choose,
    kinds_of,
    require_offered,
    why_left_out,
    words_of,
)
from mkiso.study.selection import Selection, selection_of

RULE = Priors(count=2)
CHEST = frozenset({("CT", "CHEST")})


def study(uid: str, date: str = "20260310", time: str = "", **facts: object) -> Study:
    person = {"patient_name": "DOE^JANE", "patient_birth_date": "19700101", "patient_sex": "F"}
    told = {"modalities_in_study": ("CT",), **person, **facts}
    return Study("", f"1.2.{uid}", "4711", study_date=date, study_time=time, **told)  # type: ignore[arg-type]


ASKED = study("1")


def with_fact(of: Study, keyword: str, value: str) -> Study:
    return replace(of, **{keyword: value})  # type: ignore[arg-type]


def of(kinds: Mapping[str, Kinds] | None = None) -> Callable[[Study], Kinds]:
    return lambda each: (kinds or {}).get(each.study_instance_uid.removeprefix("1.2."), CHEST)


def taken(*others: Study, rule: Priors = RULE, rules: Identity = Identity(), asked: Study = ASKED) -> list[str]:  # noqa: B008
    return [each.study_instance_uid[4:] for each in choose([asked], [asked, *others], of(), rule, rules).taken]


def reason(other: Study, *more: Study, rule: Priors = RULE, kinds: Mapping[str, Kinds] | None = None) -> str | None:
    choice = choose([ASKED], [ASKED, other, *more], of(kinds), rule, Identity())
    return choice.not_taken.get(other.study_instance_uid)


def test_the_newest_earlier_ones_are_taken_newest_first() -> None:
    others = [study(year, f"20{year}0101") for year in ("20", "23", "21", "22")]
    assert taken(*others) == ["23", "22"]
    assert reason(others[0], *others[1:]) == "enough"


def test_the_list_in_any_order_gives_the_same() -> None:
    others = [study(year, f"20{year}0101") for year in ("20", "23", "21", "22")]
    assert taken(*others) == taken(*reversed(others))


@pytest.mark.parametrize(
    ("date", "time", "why"),
    [
        ("20260309", "", None),
        ("2026.03.09", "", None),
        ("20260311", "", "not earlier"),
        ("20260310", "", "not earlier"),
        ("20260310", "1159", None),
        ("20260310", "11:59:59.5", None),
        ("20260310", "12", "not earlier"),
        ("20260310", "1200", "not earlier"),
        ("20260310", "120000", "not earlier"),
        ("20260310", "1300", "not earlier"),
        ("", "", "not earlier"),
        ("2025", "", "not earlier"),
    ],
)
def test_only_what_certainly_was_made_before(date: str, time: str, why: str | None) -> None:
    asked = replace(ASKED, study_time="120000")
    other = study("2", date, time)
    assert choose([asked], [other], of(), RULE, Identity()).not_taken.get("1.2.2") == why


@pytest.mark.parametrize("date", ["", "2026", "2026031x", "２０２６０３１０"])
def test_nothing_is_certainly_before_what_tells_no_day(date: str) -> None:
    asked, other = replace(ASKED, study_date=date), study("2", "20200101")
    assert choose([asked], [other], of(), RULE, Identity()).not_taken == {"1.2.2": "not earlier"}


def test_of_several_that_are_asked_for_one_may_be_after_it() -> None:
    early, other = study("3", "20100101", modalities_in_study=("MR",)), study("2", "20200101")
    kinds = of({"3": frozenset({("MR", "KNEE")})})
    assert choose([early, ASKED], [early, ASKED, other], kinds, RULE, Identity()).taken == (other,)
    assert not choose([early], [early, other], kinds, RULE, Identity()).taken


def test_years_bound_how_long_ago() -> None:
    rule = Priors(count=2, years=5)
    assert reason(study("2", "20210310"), rule=rule) is None
    assert reason(study("2", "20210309"), rule=rule) == "too long ago"
    long_ago = replace(ASKED, study_date="00020101")
    assert taken(study("2", "00010101"), rule=rule, asked=long_ago) == ["2"]


@pytest.mark.parametrize(
    ("modality", "body_part", "other", "why"),
    [
        ("same", "same", {("CT", "CHEST")}, None),
        ("same", "same", {("CT", "HEAD"), ("CT", "CHEST")}, None),
        ("same", "same", {("CT", "HEAD")}, "other kind"),
        ("same", "same", {("MR", "CHEST")}, "other kind"),
        ("same", "same", {("MR", "CHEST"), ("CT", "HEAD")}, "other kind"),
        ("same", "same", {("CT", "")}, "kind not told"),
        ("same", "same", {("MR", "")}, "other kind"),
        ("same", "same", set(), "kind not told"),
        ("any", "same", {("MR", "CHEST")}, None),
        ("any", "same", {("MR", "")}, "kind not told"),
        ("same", "any", {("CT", "")}, None),
        ("same", "any", {("MR", "CHEST")}, "other kind"),
        ("any", "any", {("MR", "HEAD")}, None),
        ("any", "any", set(), None),
    ],
)
def test_what_they_show_has_to_be_alike(
    modality: str, body_part: str, other: set[tuple[str, str]], why: str | None
) -> None:
    rule = Priors.model_validate({"count": 1, "modality": modality, "body_part": body_part})
    it = study("2", "20200101", modalities_in_study=())
    assert reason(it, rule=rule, kinds={"2": frozenset(other)}) == why


def test_a_report_in_both_makes_no_two_studies_alike() -> None:
    series = [Series("1.1", modality="SR", body_part="CHEST"), Series("1.2", modality="CT", body_part=" chest ")]
    assert kinds_of(series) == CHEST
    asked = replace(ASKED, modalities_in_study=("CT", "SR"))
    other = study("2", "20200101", modalities_in_study=("US", "SR"))
    assert choose([asked], [other], of(), RULE, Identity()).not_taken["1.2.2"] == "other kind"


@pytest.mark.parametrize("kinds", [set(), {("CT", "")}])
def test_what_is_asked_for_may_tell_no_kind_either(kinds: set[tuple[str, str]]) -> None:
    other = study("2", "20200101", modalities_in_study=())
    assert reason(other, kinds={"1": frozenset(kinds)}) == "kind not told"


def test_another_modality_costs_no_question() -> None:
    def never(each: Study) -> Kinds:
        raise AssertionError(each)

    assert not choose([ASKED], [study("2", "20200101", modalities_in_study=("MR",))], never, RULE, Identity()).taken


def test_where_every_modality_will_do_another_one_is_taken() -> None:
    rule = Priors(count=1, modality="any", body_part="same")
    other = study("2", "20200101", modalities_in_study=("MR",))
    assert reason(other, rule=rule, kinds={"2": frozenset({("MR", "CHEST")})}) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("issuer_of_patient_id", "SOUTH"),
        ("patient_birth_date", "19710101"),
        ("patient_sex", "M"),
        ("patient_id", "4712"),
    ],
)
def test_what_contradicts_is_of_another_patient(keyword: str, value: str) -> None:
    asked = replace(ASKED, issuer_of_patient_id="NORTH")
    other = with_fact(study("2", "20200101"), keyword, value)
    assert choose([asked], [other], of(), RULE, Identity()).not_taken["1.2.2"] == "other patient"


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("issuer_of_patient_id", ("NORTH", "SOUTH")), ("patient_birth_date", ("19700101", "19800101"))],
)
def test_where_two_share_an_id_only_who_says_the_same_is_taken(keyword: str, values: tuple[str, str]) -> None:
    untold, one, two = (
        with_fact(study(uid, "20200101"), keyword, value) for uid, value in zip("234", ("", *values), strict=True)
    )
    silent, named = (with_fact(ASKED, keyword, value) for value in ("", values[0]))
    assert taken(untold, one, asked=silent) == (["2"] if keyword == "issuer_of_patient_id" else ["3", "2"])
    assert taken(untold, one, two, asked=silent) == []
    assert taken(untold, one, two, asked=named) == ["3"]


@pytest.mark.parametrize(("own", "others"), [("", "NORTH"), ("NORTH", "")])
def test_an_issuer_that_only_one_names_is_a_doubt(own: str, others: str) -> None:
    asked = replace(ASKED, issuer_of_patient_id=own)
    assert taken(study("2", "20200101", issuer_of_patient_id=others), asked=asked) == []
    assert taken(study("2", "20200101", issuer_of_patient_id=own), asked=asked) == ["2"]


@pytest.mark.parametrize(
    ("births", "names", "is_taken"),
    [
        (("", ""), ("DOE^JOHN", "SMITH^ANNA"), False),
        (("19700101", ""), ("DOE^JOHN", "SMITH^ANNA"), False),
        (("", ""), ("", ""), False),
        (("", ""), ("DOE^J", "ROE^J"), False),
        (("", ""), ("Li^A", "Li^B"), False),
        (("", ""), ("Li^A", "Li^A"), False),
        (("19700101", ""), ("Mueller^Anna", "Mueller^Hans"), False),
        (("", ""), ("\u674e^\u4f1f", "\u674e^\u5a1c"), False),
        (("", ""), ("\u674e^\u4f1f", "\u674e^\u4f1f"), True),
        (("", ""), ("DOE^ANNA", "Smith-Doe, Anna"), True),
        (("19700101", "1970.01.01"), ("DOE^ANNA", "SMITH^ANNA"), True),
        (("19700101", "1970.01.01"), ("DOE^ANNA", "SMITH^ANNIE"), False),
        (("19700101", "19700101"), ("DOE^ANNA", ""), True),
        (("19700101", "19700101"), ("LI^WEI", "\u674e^\u4f1f"), True),
        (("", "19700101"), ("LI^WEI", "\u674e^\u4f1f"), False),
        (("", ""), ("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "\u5c71\u7530^\u592a\u90ce"), True),
    ],
)
def test_a_patient_id_alone_makes_no_prior(births: tuple[str, str], names: tuple[str, str], is_taken: bool) -> None:
    asked, other = (
        replace(each, patient_birth_date=birth, patient_name=name, patient_sex="")
        for each, birth, name in zip((ASKED, study("2", "20200101")), births, names, strict=True)
    )
    assert taken(other, asked=asked) == (["2"] if is_taken else [])


def test_what_a_site_does_not_compare_is_not_compared() -> None:
    other = study("2", "20200101", patient_sex="M")
    assert taken(other) == []
    assert taken(other, rules=Identity(compare=("PatientBirthDate",))) == ["2"]


def test_two_sources_share_a_patient_only_by_issuer_or_domain() -> None:
    asked, other = replace(ASKED, origin=Origin("one")), replace(study("2", "20200101"), origin=Origin("two"))
    assert taken(other, asked=asked) == []
    shared = [replace(each, issuer_of_patient_id="NORTH") for each in (asked, other)]
    assert taken(shared[1], asked=shared[0]) == ["2"]


def test_a_copy_that_contradicts_keeps_the_study_off() -> None:
    good = study("2", "20200101")
    assert taken(good, replace(good, patient_birth_date="19710101")) == []


def test_the_patient_apis_patient_counts_too() -> None:
    other = study("2", "20200101")
    assert choose([ASKED], [other], of(), RULE, Identity(), Patient("4711")).taken == (other,)
    assert not choose([ASKED], [other], of(), RULE, Identity(), Patient("99")).taken


def test_what_was_left_out_on_purpose_is_no_prior() -> None:
    other = study("2", "20200101")
    assert not choose([ASKED], [ASKED, other], of(), RULE, Identity(), left_out=[other]).taken


def test_a_patient_of_very_many_studies_costs_bounded_questions() -> None:
    others = [study(str(number), f"{1900 + number}0101") for number in range(10, 110)]
    asked: list[str] = []

    def head(each: Study) -> Kinds:
        asked.append(each.study_instance_uid)
        return CHEST if each == ASKED else frozenset({("CT", "HEAD")})

    choice = choose([ASKED], others, head, RULE, Identity())
    assert len(asked) == MOST_LOOKED_AT + 1 == 51
    assert list(choice.not_taken.values()).count("not looked at") == len(others) - MOST_LOOKED_AT


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PatientMismatch("x"), "prior_left_out:contradicts"),
        (StudyIncomplete("x"), "prior_left_out:incomplete"),
        (PacsBusy("x"), "prior_left_out:unavailable"),
        (NotConvertible("x"), "prior_left_out:not_convertible"),
        *((kind("x"), "") for kind in (StorageFull, JobStopped, ConfigurationError, Unforeseen)),
    ],
)
def test_a_job_goes_on_only_without_what_is_the_priors_fault(error: MkisoError, why: str) -> None:
    assert why_left_out(error) == why


def test_people_read_why_an_earlier_study_is_not_on_the_disc() -> None:
    assert words_of(("patient_api", NO_ROOM)) == [WORDS[NO_ROOM]]
    assert words_of(tuple(WORDS)) == list(WORDS.values())


def test_with_priors_is_another_question_than_without() -> None:
    plain, beside = Selection(("1.2",)), Selection(("1.2",), priors=True)
    assert plain != beside
    assert len({plain.written, beside.written, Selection(priors=True).written, Selection().written}) == 4
    assert selection_of({"study_uids": ["1.2"], "priors": True}) == beside
    assert not Selection(priors=True)


def test_a_site_that_puts_none_on_discs_refuses_them() -> None:
    require_offered(RULE)
    with pytest.raises(InvalidRequest, match=r"priors\.count"):
        require_offered(Settings().priors)
    with pytest.raises(ValueError, match=r"priors\.count is 0"):
        Priors(default=True)
