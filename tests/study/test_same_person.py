"""Whether names and birth dates say that two are one person, beside a Patient ID that both have."""

import pytest

from mkiso.config.disc import Identity
from mkiso.study.same_person import Person, are_one

BORN = "19700101"
RULES = Identity()


def alike(births: tuple[str, str], names: tuple[str, str], rules: Identity = RULES) -> bool:
    one, other = (Person(name, born) for name, born in zip(names, births, strict=True))
    either = {are_one(one, other, rules), are_one(other, one, rules)}
    assert len(either) == 1, "whichever is asked about the other"
    return either.pop()


@pytest.mark.parametrize(
    "names",
    [
        ("Kim^Minsoo=金^民洙=김^민수", "Kim^Jiyoung=金^智英=김^지영"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Hanako=山田^花子"),
        ("van der Berg^Anna", "van der Meer^Peter"),
        ("de la Cruz^Ana", "de la Fuente^Pedro"),
        ("Mueller^Anna^^Prof^Dr.", "Schmidt^Peter^^Prof^Dr."),
        ("????^????", "????^????"),
        ("\ufffd\ufffd^\ufffd\ufffd", "\ufffd\ufffd^\ufffd\ufffd"),
        ("UNKNOWN", "UNKNOWN"),
        ("Unknown^Male", "Unknown^Male"),
        ("BABY^BOY", "BABY^BOY"),
        ("0^0", "0^0"),
        ("X^Y", "X^Y"),
        ("LI^WEI", "李^伟"),
        ("Mueller^Anna", "Mueller^Hans"),
        ("Li 李^Wei", "Li 李^Hua"),
        ("Yamada(山田)^Taro", "Yamada(山田)^Hanako"),
        ("Иванов^И^П", "Петров^И^П"),
        ("ด.ช. สมชาย^ใจดี", "ด.ช. วิชัย^มีสุข"),
        ("García López^Ana", "García López^Luis"),
        ("Nguyễn^Thị Hoa", "Nguyễn^Thị Lan"),
        ("Müller-Schmidt^Anna", "Müller-Schmidt^Peter"),
        ("Mohammed^Ahmed", "Ahmed^Mohammed"),
        ("NO^NAME", "NO^NAME"),
        ("Recién^Nacido", "Recién^Nacido"),
        ("à¸ªà¸¡^à¸\x8aà¸²", "à¸§à¸´^à¸\x8aà¸±"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("born", ["", "19000101", "00010101", "00000000", "UNKNOWN", "1970", "99991231"])
def test_without_a_birth_date_it_takes_two_parts_of_the_name(born: str, names: tuple[str, str]) -> None:
    """Family name and given name: not one in two writings, no particle, title or word that stands for nobody."""
    assert not alike((born, born), names)


@pytest.mark.parametrize(
    "names",
    [
        ("DOE^ANNA", "Smith-Doe, Anna"),
        ("Yamada^Tarou=山田^太郎", "山田^太郎"),
        ("李^伟", "李^伟"),
        ("Müller^Jürgen", "MUELLER^JUERGEN^^Dr."),
        ("García^José", "GARCIA^JOSE"),
        ("O'Neil^Seán", "ONEIL^SEAN"),
        ("ตัวอย่าง^สมชาย", "ตัวอย่าง^สมชาย"),
        ("ตัวอย่าง^สมชาย", "ตัวอย่าง^นาย สมชาย"),
        ("MUELLER^JUERGEN", "MULLER^JURGEN"),
        ("Wałęsa^Łukasz", "WALESA^LUKASZ"),
        ("Sørensen^Jørgen", "SOERENSEN^JOERGEN"),
        ("Đặng^Đức Anh", "DANG^DUC ANH"),
        ("أحمد^خالد", "احمد^خالد"),
        ("LE^VAN", "LE^VAN"),
        ("Do^Anna", "DO^ANNA"),
        ("ヤマダ^ハナコ", "やまだ^はなこ"),
    ],
)
@pytest.mark.parametrize("births", [("", ""), (BORN, ""), (BORN, BORN)])
def test_two_parts_of_the_name_are_enough(births: tuple[str, str], names: tuple[str, str]) -> None:
    assert alike(births, names)


@pytest.mark.parametrize(
    ("names", "are"),
    [
        (("DOE^ANNA", "SMITH^ANNA"), True),
        (("X^Y", "X^Y"), True),
        (("DOE^ANNA", ""), True),
        (("DOE^ANNA", "^^^"), True),
        (("LI^WEI", "李^伟"), True),
        (("Müller^A", "Mu\u0308ller^A"), True),
        (("DOE^ANNA", "SMITH^ANNIE"), False),
        (("Mueller^Anna^^Dr.", "Schmidt^Peter^^Dr."), False),
        (("van der Berg^Anna", "van Gogh^Peter"), False),
        (("ＭＵＥＬＬＥＲ^Ａ", "SMITH^JOHN"), False),
        (("ミヤ^ケン", "みやざき^はな"), False),
        (("????^????", "DOE^JOHN"), True),
        (("M?ller^Anna", "Müller^Anna"), True),
        (("M\ufffdller^Anna", "M\ufffdller^Anna"), True),
        (("UNKNOWN^FEMALE", "DOE^ANNA"), True),
        (("12345", "DOE^JOHN"), True),
        (("李^伟", "李伟"), True),
        (("Schmidt^Peter^^Dr. med.", "Mueller^Anna^^Dr. med."), False),
        (("Dr. Schmidt^Peter", "Dr. Mueller^Anna"), False),
    ],
)
def test_with_the_same_birth_date_a_part_of_the_name_is_enough(names: tuple[str, str], are: bool) -> None:
    assert alike((BORN, "1970.01.01"), names) == are


def test_two_birth_dates_contradict_unless_a_site_compares_none() -> None:
    assert not alike((BORN, "19800101"), ("DOE^ANNA", "DOE^ANNA"))
    assert alike((BORN, "19800101"), ("DOE^ANNA", "DOE^ANNA"), Identity(compare=("PatientSex",)))
    assert not alike((BORN, "19800101"), ("DOE^ANNA", "DOE^JANE"), Identity(compare=("PatientSex",)))
