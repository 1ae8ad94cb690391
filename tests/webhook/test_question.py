"""The parameters of a request, read strictly."""

import pytest

from mkiso.config.settings import Settings
from mkiso.errors import InvalidAccessionNumber, InvalidRequest, TooManyAccessionNumbers
from mkiso.study.question import Question
from mkiso_service.webhook.questions.query import (
    MAX_QUERY_BYTES,
    Query,
    QueryTooLong,
    one_study,
    print_order,
    several_studies,
)

SETTINGS = Settings()


def test_a_de_identified_copy_is_a_question_of_its_own_without_priors() -> None:
    ruled = Settings.model_validate({"priors": {"count": 2, "default": True}})
    plain, copied = (
        one_study(Query(f"accession_number=A1{more}".encode()), ruled) for more in ("", "&deidentified=true")
    )
    assert (plain.deidentified, plain.selection.priors) == (False, True)
    assert (copied.deidentified, copied.selection.priors) == (True, False)
    assert copied.key != one_study(Query(b"accession_number=A1&priors=false"), ruled).key
    assert Question.of_run("download", copied.parameters) == copied
    with pytest.raises(InvalidRequest, match="aren't printed"):
        print_order(Query(b"accession_number=A1&deidentified=true"), ruled)


@pytest.mark.parametrize("form", ["zip", "zip-encrypted", "iso-cms", "usb", "nonsense"])
def test_a_print_of_another_format_is_refused_not_made_as_an_open_disc(form: str) -> None:
    with pytest.raises(InvalidRequest, match="print without 'format'"):
        print_order(Query(f"accession_number=A1&format={form}".encode()), SETTINGS)
    assert print_order(Query(b"accession_number=A1&format=iso"), SETTINGS).format == "iso"


def test_one_study() -> None:
    assert one_study(Query(b"accession_number=A1&_=123&other=x"), SETTINGS).accession_numbers == ("A1",)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"accession_number",
        b"accession_number=",
        b"accession_number=%20",
        b"Accession_Number=A",
        b"accession_number=A&accession_number=A",
        b"accession_number=A,B",
        b"accession_number=%2A",
        b"accession_number=A%5CB",
        b"accession_number=%EF%BC%8A",
        b"accession_number=%252A",
        b"accession_number=%0D%0A",
        b"accession_number=%00",
        b"accession_number=%FF",
        b"accession_number=" + b"1" * 17,
        b"&".join([b"a=1"] * 40),
        b"accession_number=\xff",
    ],
)
def test_what_is_refused(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        one_study(Query(query), SETTINGS)


def test_a_query_longer_than_any_question_is_refused_unread() -> None:
    with pytest.raises(QueryTooLong):
        Query(b"accession_number=" + b"A" * MAX_QUERY_BYTES)


def test_several_studies_once_each() -> None:
    assert several_studies(Query(b"accession_numbers=B,A,B"), SETTINGS).accession_numbers == ("B", "A")
    with pytest.raises(TooManyAccessionNumbers):
        several_studies(
            Query(b"accession_numbers=" + b",".join(str(number).encode() for number in range(51))), SETTINGS
        )


def test_print_takes_either_name_and_a_configured_publisher() -> None:
    assert print_order(Query(b"accession_number=A,B"), SETTINGS).publisher == "rimage"
    assert print_order(Query(b"accession_numbers=A,B"), SETTINGS).accession_numbers == ("A", "B")
    with pytest.raises(InvalidRequest):
        print_order(Query(b"accession_numbers=A&accession_number=B"), SETTINGS)
    with pytest.raises(InvalidRequest, match="rimage"):
        print_order(Query(b"accession_number=A&publisher=nobody"), SETTINGS)


def test_a_disc_in_another_language_is_another_question() -> None:
    plain, german, thai = (
        one_study(Query(b"accession_number=A" + query), SETTINGS) for query in (b"", b"&language=de", b"&language=th")
    )
    assert len({plain.key, german.key, thai.key}) == 3
    assert plain.parameters == {"accession_numbers": ["A"]}
    assert german.parameters == {"accession_numbers": ["A"], "language": "de"}
    assert Question.of_run("download", german.parameters) == german
    assert several_studies(Query(b"accession_numbers=A&language=de"), SETTINGS).key == german.key
    assert print_order(Query(b"accession_number=A&language=fr"), SETTINGS).language == "fr"
    assert one_study(Query(b"accession_number=A&language="), SETTINGS) == plain
    for query in (b"language=xx", b"language=DE", b"language=de&language=de", b"language=../de"):
        with pytest.raises(InvalidRequest, match="language"):
            one_study(Query(b"accession_number=A&" + query), SETTINGS)


def test_who_says_the_sites_own_language_asks_what_everybody_asks() -> None:
    """A clerk who asked again for a failed print and a program that did had two jobs, which made two discs."""
    spoken = Settings.model_validate({"disc": {"language": "de"}})
    for asked, own, other in (
        (print_order, b"accession_number=A1&language=de", b"accession_number=A1&language=en"),
        (one_study, b"accession_number=A1&language=de", b"accession_number=A1&language=en"),
        (several_studies, b"accession_numbers=A1,A2&language=de", b"accession_numbers=A1,A2&language=en"),
    ):
        plain = asked(Query(own.partition(b"&")[0]), spoken)
        assert asked(Query(own), spoken).key == plain.key != asked(Query(other), spoken).key


def test_a_print_is_confirmed_in_so_many_words_and_is_another_question_then() -> None:
    plain, refused, confirmed = (
        print_order(Query(query), SETTINGS)
        for query in (
            b"accession_number=A",
            b"accession_number=A&confirm_reprint=false",
            b"accession_number=A&confirm_reprint=true",
        )
    )
    assert (plain.confirm_reprint, refused.confirm_reprint, confirmed.confirm_reprint) == (False, False, True)
    assert plain.key == refused.key != confirmed.key
    assert confirmed.key == print_order(Query(b"confirm_reprint=true&accession_number=A"), SETTINGS).key
    for query in (b"confirm_reprint=1", b"confirm_reprint=TRUE", b"confirm_reprint=true&confirm_reprint=true"):
        with pytest.raises(InvalidRequest, match="confirm_reprint"):
            print_order(Query(b"accession_number=A&" + query), SETTINGS)


def test_the_same_question_has_the_same_key_and_no_other() -> None:
    keys = {
        several_studies(Query(b"accession_numbers=A,B"), SETTINGS).key,
        several_studies(Query(b"accession_numbers=B,A"), SETTINGS).key,
        one_study(Query(b"accession_number=A"), SETTINGS).key,
        print_order(Query(b"accession_number=A"), SETTINGS).key,
    }
    assert len(keys) == 3


@pytest.mark.parametrize(("query", "part"), [(b"", None), (b"part=1", 1), (b"part=0012", 12)])
def test_part(query: bytes, part: int | None) -> None:
    assert Query(query).part() == part


@pytest.mark.parametrize(
    "query", [b"part=", b"part=0", b"part=-1", b"part=x", b"part=99999", b"part=%D9%A1", b"part=1&part=2"]
)
def test_no_part(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Query(query).part()


def test_a_set_is_named_by_its_id() -> None:
    name = "3fa4c2d1-0000-4000-8000-00000000000a"
    assert (Query(b"").set(), Query(f"set={name}".encode()).set()) == (None, name)
    assert Query(b"set=" + name.upper().encode()).set() == name
    for query in ("set=", "set=3fa4c2d1", f"set={name}&set={name}", "set=..%2F"):
        with pytest.raises(InvalidRequest):
            Query(query.encode()).set()


def test_errors_of_accession_numbers_keep_their_type() -> None:
    with pytest.raises(InvalidAccessionNumber):
        one_study(Query(b"accession_number=*"), SETTINGS)
