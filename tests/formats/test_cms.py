"""Encrypted DICOM files (PS3.15 D.1): opened by OpenSSL with the password and with a key, every wrong byte found."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from mkiso.errors import ConfigurationError, ProofFailed, TooLargeForMedium
from mkiso.formats import envelope_reader
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.envelope_reader import Opener, private_key_of, with_envelopes
from mkiso.formats.folder import unpack
from mkiso.formats.proof import verify_image
from mkiso.formats.protocol import Extent, Format, PasswordNeeded
from mkiso.formats.proven_set import prove, write_set
from mkiso.formats.registry import FORMATS, format_of
from mkiso.formats.zip_encrypted import new_password
from mkiso.languages import languages
from mkiso.media import envelopes
from mkiso.media.disc_set import lay_out_set
from mkiso.media.envelopes import Envelopes, recipients_of
from mkiso.media.explicit import convert
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.media.shown import Showing
from mkiso.study.gate import Part
from mkiso.study.models import DiscFile
from peers.corpus import THAI, make_study
from peers.discs import extract, flip, opened_as_its_readme_says
from tests.media.discs import CREATED, contents_of, instances, passed, settings

pytestmark = pytest.mark.usefixtures("forked_decoders")

PASSWORD = new_password()
DICOMDIR, README = PurePosixPath("DICOMDIR"), PurePosixPath("README.TXT")
NAMES = ("iso-cms", "zip-cms", "usb-cms")
INSTANCE = PurePosixPath("DICOM/PT000001/ST000001/SE000001/IM000001")


@dataclass(frozen=True)
class Made:
    layout: Layout
    images: dict[str, Path]
    key: Path
    certificate: Path
    plain: dict[PurePosixPath, bytes]


def certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    key, file = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-keyout", key, "-out", file, "-subj", f"/CN={name}",
         *(options or ("-newkey", "rsa:2048", "-days", "3"))],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, file


@pytest.fixture(scope="module", autouse=True)
def few_rounds() -> Iterator[None]:
    """A key is derived hundreds of times here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelopes, "_ROUNDS", 1000)
        yield


@pytest.fixture(scope="module")
def made(few_rounds: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("cms")
    key, file = certificate(folder, "practice")
    _, other = certificate(folder, "another")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds={"ct": 2, "sr": 1})
    part = Part.whole(passed(instances(paths)))
    layout = lay_out(
        part,
        LayoutOptions(
            settings(folder),
            CREATED,
            "cd",
            showing=Showing(language="th"),
            envelopes=Envelopes(PASSWORD, recipients_of([file, other])),
        ),
        folder / "disc",
    )
    images = {}
    for name in NAMES:
        images[name] = folder / f"{name}.img"
        FORMATS[name].write(layout, images[name])
    plain = lay_out(part, LayoutOptions(settings(folder), CREATED), folder / "open")
    bytes_of = {each.path: each.source.read_bytes() for each in plain.files if each.source}
    bytes_of[DICOMDIR] = (folder / "disc" / "DICOMDIR").read_bytes()
    return Made(layout, images, key, file, bytes_of)


@pytest.fixture(params=NAMES)
def form(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param].opened(PASSWORD)


@pytest.fixture
def copy(made: Made, form: Format, tmp_path: Path) -> Path:
    return Path(shutil.copy(made.images[form.name], tmp_path / "copy"))


def test_a_good_disc_is_proved_and_verified_with_password_or_key(made: Made, form: Format) -> None:
    image = made.images[form.name]
    proof = verify_image(image, made.layout.files, form)
    assert proof.size == image.stat().st_size == form.size(made.layout)
    for opener in ({"password": PASSWORD}, {"key": private_key_of(made.key)}):
        report = verify_disc(image, **opener)
        assert (report.instances, report.patients) == (made.layout.instances, 1)
        assert any("encrypted DICOM files" in each for each in report.checked)


def test_nothing_of_the_patient_stands_outside(made: Made, form: Format) -> None:
    content = made.images[form.name].read_bytes()
    for text in ("ACC1", "สมชาย", "ตัวอย่าง", "HN-0003", "1.2.826", "DICM"):
        for encoding in ("utf-8", "iso8859-11", "utf-16-be", "utf-16-le"):
            assert text.encode(encoding) not in content, (text, encoding)
    assert {path.parts[0] for path in contents_of(form, made.images[form.name]).files} == {
        "DICOMDIR", "DICOM", "README.TXT", "INDEX.HTM", "SHA256.TXT",
    }  # fmt: skip


def test_each_file_has_a_key_and_a_vector_of_its_own(made: Made) -> None:
    opened = contents_of(FORMATS["iso-cms"].opened(PASSWORD), made.images["iso-cms"]).envelopes
    assert len(opened) == made.layout.instances + 1
    assert len({each.key for each in opened.values()} | {each.vector for each in opened.values()}) == 2 * len(opened)


def test_without_what_opens_it_nothing_is_said_but_that(made: Made, form: Format, tmp_path: Path) -> None:
    image = made.images[form.name]
    with pytest.raises(PasswordNeeded, match="it takes the password or a recipient's key"):
        verify_disc(image)
    with pytest.raises(PasswordNeeded, match="isn't the password"):
        verify_disc(image, password=PASSWORD.replace("-", ""))
    stranger, _ = certificate(tmp_path, "stranger")
    with pytest.raises(PasswordNeeded, match="or the key of somebody"):
        verify_disc(image, key=private_key_of(stranger))


@pytest.mark.parametrize("code", languages())
def test_how_to_open_it_is_said_in_each_language(tmp_path: Path, code: str) -> None:
    part = Part.whole(passed(instances(make_study(tmp_path / "in", "ACC1", patient=THAI, kinds={"ct": 1}))))
    layout = lay_out(
        part,
        LayoutOptions(settings(tmp_path), CREATED, showing=Showing(language=code), envelopes=Envelopes(PASSWORD)),
        tmp_path / "d",
    )
    sources = {file.path: file.source for file in layout.files}
    for path in (README, PurePosixPath("INDEX.HTM")):
        source = sources[path]
        assert source
        content = source.read_text("utf-8-sig")
        assert "DICOMDIR" in content and "Example Hospital" in content and "OpenSSL" in content
        assert "สมชาย" not in content and "ACC1" not in content and PASSWORD not in content
    assert f'lang="{code}"' in content
    assert "STD-GEN-SEC-CD" in layout.conformance and "IHE" not in layout.conformance


def test_the_size_of_an_envelope_is_known_beforehand(tmp_path: Path, made: Made) -> None:
    both = Envelopes(PASSWORD, recipients_of([made.certificate]))
    sizes = [*range(60, 140), *range(200, 260), *range(65_400, 65_440), 2**16, 2**24, 2**24 + 1]
    files = []
    for size in sizes:
        (tmp_path / str(size)).write_bytes(content := bytes(size))
        sha256 = hashlib.sha256(content).hexdigest()
        files.append(DiscFile(PurePosixPath(str(size)), size, sha256, tmp_path / str(size)))
    for file in both.sealed(files, tmp_path / "sealed"):
        assert file.source and file.inside
        assert file.size == both.size_of(file.inside.size) == file.source.stat().st_size
        assert file.sha256 == hashlib.sha256(file.source.read_bytes()).hexdigest()


def test_a_file_that_programs_could_not_open_is_refused(tmp_path: Path) -> None:
    large = DiscFile(PurePosixPath("X"), 2**31 - 200, "", tmp_path / "X", sop_instance_uid="1.2")
    with pytest.raises(TooLargeForMedium, match=r"more than 2\.1 GB"):
        Envelopes(PASSWORD).sealed([large], tmp_path)


def test_a_file_that_changed_after_it_came_is_not_encrypted_or_not_proved(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"longer than said")
    with pytest.raises(ProofFailed, match="another size"):
        Envelopes(PASSWORD).sealed([DiscFile(PurePosixPath("X"), 4, "00" * 32, tmp_path / "x")], tmp_path / "s")


def test_an_image_that_changed_before_it_was_encrypted_is_not_proved(made: Made, tmp_path: Path) -> None:
    """It gets the digest of what was received."""
    folder = tmp_path / "sealed"
    [file] = [each for each in made.layout.files if each.path == INSTANCE]
    assert file.inside
    content = bytearray(made.plain[INSTANCE])
    content[-1] ^= 1
    (tmp_path / "f").write_bytes(content)
    received = DiscFile(INSTANCE, file.inside.size, file.inside.sha256, tmp_path / "f")
    [sealed] = Envelopes(PASSWORD).sealed([received], folder)
    files = [file for file in made.layout.files if file.path not in (INSTANCE, DICOMDIR)]
    [directory] = Envelopes(PASSWORD).sealed(
        [replace(received, path=DICOMDIR, source=folder / INSTANCE, size=sealed.size, sha256=sealed.sha256)], folder
    )
    layout = replace(made.layout, files=(*files, sealed, directory))
    form = FORMATS["zip-cms"].opened(PASSWORD)
    form.write(layout, tmp_path / "x.zip")
    with pytest.raises(ProofFailed):
        verify_image(tmp_path / "x.zip", layout.files, form)


def test_an_envelope_that_holds_another_file_than_its_disc_says_is_not_proved(made: Made, tmp_path: Path) -> None:
    """Each opens and is genuine; nobody but the list of what was received knows which belongs where."""
    form = FORMATS["zip-cms"].opened(PASSWORD)
    verify_image(made.images["zip-cms"], made.layout.files, form)
    told = {file.path: file.inside for file in made.layout.files}
    others = {INSTANCE: told[DICOMDIR], DICOMDIR: told[INSTANCE]}
    swapped = [replace(file, inside=others.get(file.path, file.inside)) for file in made.layout.files]
    with pytest.raises(ProofFailed, match="2 file"):
        verify_image(made.images["zip-cms"], swapped, form)


def test_pieces_are_read_as_the_whole(made: Made) -> None:
    form = FORMATS["zip-cms"].opened(PASSWORD)
    contents = contents_of(form, made.images["zip-cms"])
    extent = contents.files[INSTANCE]
    with made.images["zip-cms"].open("rb") as image:
        whole = contents.read(image.fileno(), extent)
        assert whole == made.plain[INSTANCE]
        for at in (0, 1, 15, 16, 17, 127, len(whole) - 1, len(whole), len(whole) + 5):
            for size in (0, 1, 16, 33, 10**9):
                assert contents.read(image.fileno(), extent, at, size) == whole[at : at + size]


def _spots(form: Format, image: Path) -> Iterator[int]:
    """In the heads of envelopes, and in what is encrypted."""
    found = contents_of(form, image)
    for path, step in ((DICOMDIR, 29), (INSTANCE, 13 if form.name == "zip-cms" else 101)):
        extent = found.files[path]
        head = extent.size - found.envelopes[extent].encrypted
        yield from (extent.start + at for at in range(0, head, step))
        yield from (extent.start + head + at for at in (0, 5, 40, 60))
        yield from (extent.start + extent.size - at for at in (1, 16, 17, 34))
    for path in (README, PurePosixPath("SHA256.TXT")):
        yield found.files[path].start


def test_every_flipped_byte_is_found_by_the_proof_and_years_later(made: Made, form: Format, copy: Path) -> None:
    key = private_key_of(made.key)
    for number, position in enumerate(_spots(form, copy)):
        flip(copy, position)
        with pytest.raises(ProofFailed):
            verify_image(copy, made.layout.files, form)
        opener = {"key": key} if number % 5 == 0 else {"password": PASSWORD}
        assert check_disc(copy, **opener).findings, position
        flip(copy, position)
    assert verify_disc(copy, password=PASSWORD)


@pytest.mark.parametrize("cut", [1, 5, 22, 600, 5_000])
def test_a_truncated_disc_is_caught(made: Made, form: Format, copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed):
        verify_image(copy, made.layout.files, form)
    assert check_disc(copy, password=PASSWORD).findings


def test_a_file_that_changed_is_named(made: Made, copy: Path, form: Format) -> None:
    extent = contents_of(form, copy).files[INSTANCE]
    flip(copy, extent.start + extent.size // 2)
    findings = check_disc(copy, password=PASSWORD).findings
    assert f"{INSTANCE} isn't what was encrypted: it has another digest than its envelope says." in findings


def test_the_files_go_onto_a_stick_as_they_are_in_its_image(made: Made, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    assert unpack(made.images["usb-cms"], tmp_path / "stick").files == len(made.layout.files)
    report = check_disc(tmp_path / "stick", password=PASSWORD)
    assert (report.findings, report.instances) == ((), made.layout.instances)
    assert not check_disc(tmp_path / "stick", key=private_key_of(made.key)).findings


def test_a_folder_is_checked_as_an_image_is(made: Made, tmp_path: Path) -> None:
    folder = extract(made.images["zip-cms"], tmp_path / "unpacked")
    assert verify_disc(folder, password=PASSWORD).instances == made.layout.instances
    assert verify_disc(folder, key=private_key_of(made.key)).patients == 1
    with pytest.raises(PasswordNeeded):
        verify_disc(folder)
    flip(folder / INSTANCE, (folder / INSTANCE).stat().st_size // 2)
    found = check_disc(folder, password=PASSWORD).findings
    assert any("another digest" in each for each in found) and any("SHA256.TXT" in each for each in found)
    shutil.copy(made.layout.files[0].source or "", folder / "DICOM" / "LOST")
    (folder / INSTANCE).write_bytes(made.plain[INSTANCE])
    found = check_disc(folder, password=PASSWORD).findings
    assert f"{INSTANCE} is no encrypted DICOM file that can be read." in found
    assert any("LOST" in each for each in found)
    (folder / INSTANCE).unlink()
    assert any("missing" in each for each in check_disc(folder, password=PASSWORD).findings)


def test_an_envelope_of_another_disc_is_told_from_its_own(made: Made, tmp_path: Path) -> None:
    folder = extract(made.images["zip-cms"], tmp_path / "unpacked")
    content = made.plain[INSTANCE]
    (tmp_path / "f").write_bytes(content)
    file = DiscFile(INSTANCE, len(content), hashlib.sha256(content).hexdigest(), tmp_path / "f")
    Envelopes(new_password()).sealed([file], folder)
    assert f"{INSTANCE} doesn't open as others do: it was changed, or isn't of this disc." in (
        check_disc(folder, password=PASSWORD).findings
    )


def test_open_files_are_never_written_as_encrypted_ones(made: Made, form: Format, tmp_path: Path) -> None:
    bare = replace(made.layout, files=tuple(replace(file, inside=None) for file in made.layout.files))
    with pytest.raises(ProofFailed, match="aren't encrypted"):
        form.write(bare, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_encrypted_is_divided_by_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mkiso.media import capacity, volumes

    studies = passed(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 40})))
    sealed = Envelopes(PASSWORD)
    whole = lay_out_set(
        studies, settings(tmp_path), tmp_path / "d", created=CREATED, medium="cd", envelopes=sealed
    )  # fmt: skip
    [layout] = whole.layouts
    monkeypatch.setitem(capacity.MEDIUM_SECTORS, "cd", layout.sectors - 1)
    monkeypatch.setattr(volumes, "_SLACK_SECTORS", 4)
    with pytest.raises(TooLargeForMedium):
        alone = settings(tmp_path, disc={"span": False})
        lay_out_set(studies, alone, tmp_path / "a", created=CREATED, medium="cd", envelopes=sealed)
    parts = lay_out_set(studies, settings(tmp_path), tmp_path / "p", created=CREATED, medium="cd", envelopes=sealed)
    assert len(parts.layouts) == 2
    for number, part in enumerate(parts.layouts):
        FORMATS["iso-cms"].write(part, tmp_path / f"{number}.iso")
        assert (tmp_path / f"{number}.iso").stat().st_size == part.size
        verify_image(tmp_path / f"{number}.iso", part.files, FORMATS["iso-cms"].opened(PASSWORD))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-newkey", "rsa:1024", "-days", "3"), "no RSA key of 2048"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "3"), "no RSA key"),
        (("-newkey", "rsa:2048", "-days", "3", "-addext", "keyUsage=digitalSignature"), "isn't for encryption"),
        (("-newkey", "rsa:2048", "-not_before", "20200101000000Z", "-not_after", "20210101000000Z"), "valid today"),
    ],
)
def test_a_certificate_that_does_not_serve_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    _, file = certificate(tmp_path, "x", *options)
    with pytest.raises(ConfigurationError, match=words):
        recipients_of([file])


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(ConfigurationError, match="no certificate"):
        recipients_of([tmp_path / "x"])
    with pytest.raises(ConfigurationError, match="can't be read"):
        recipients_of([tmp_path / "y"])
    with pytest.raises(ProofFailed, match="no RSA private key"):
        private_key_of(tmp_path / "x")


def test_broken_envelopes_are_findings_and_nothing_worse(made: Made, tmp_path: Path) -> None:
    """Each byte of a head as whatever it may be, and each beginning of one: read or refused, in words."""
    folder = extract(made.images["zip-cms"], tmp_path / "unpacked")
    whole = (folder / DICOMDIR).read_bytes()
    opener = Opener("", private_key_of(made.key))
    for at in range(0, 1200, 11):
        for value in (0x00, 0x80, 0xFF):
            _read_changed(folder, whole[:at] + bytes([value]) + whole[at + 1 :], opener)
        _read_changed(folder, whole[:at], opener)


def test_the_keys_of_one_disc_take_no_longer_than_it_is_worth(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign disc may have a key of its own for each file, or hundreds, of millions of rounds each."""
    from mkiso.formats.folder_check import read_folder

    contents = read_folder(extract(made.images["zip-cms"], tmp_path / "unpacked"))
    for most in (1000, 999):  # of our own, all files have one key of 1000 rounds here
        monkeypatch.setattr(envelope_reader, "_MOST_ROUNDS_IN_ALL", most)
        opened, findings = with_envelopes(contents, -1, Opener(PASSWORD))
        if most == 1000:
            assert len(opened.envelopes) > 1 and not findings
    assert not opened.envelopes and len(findings) == 1 and "take too long" in findings[0]


def test_the_recipients_of_one_disc_take_no_longer_than_it_is_worth(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign disc may name a recipient many times in each file, each of which is tried."""
    from mkiso.formats.folder_check import read_folder

    contents = read_folder(extract(made.images["zip-cms"], tmp_path / "unpacked"))
    monkeypatch.setattr(envelope_reader, "_MOST_ROUNDS_IN_ALL", 3 * envelope_reader._ROUNDS_OF_RSA)
    _, findings = with_envelopes(contents, -1, Opener("", private_key_of(made.key)))
    assert "take too long" in findings[-1]


def _read_changed(folder: Path, content: bytes, opener: Opener) -> None:
    from mkiso.formats.folder_check import read_folder

    (folder / DICOMDIR).write_bytes(content)
    contents, findings = with_envelopes(read_folder(folder), -1, opener)
    directory = contents.files[DICOMDIR]
    assert findings or not contents.envelopes or directory in contents.envelopes


@pytest.mark.peer
@pytest.mark.parametrize("by", ["password", "key"])
def test_openssl_opens_each_file_byte_for_byte(made: Made, tmp_path: Path, by: str) -> None:
    folder = extract(made.images["iso-cms"], tmp_path / "unpacked")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)
    opening = ["-pwri_password", PASSWORD]
    if by == "key":
        opening = ["-inkey", str(made.key), "-recip", str(made.certificate)]
    opened = 0
    for file in made.layout.files:
        if file.inside:
            assert _opened_by_openssl(folder / file.path, opening, tmp_path) == made.plain[file.path]
            opened += 1
    assert opened == made.layout.instances + 1


@pytest.mark.peer
@pytest.mark.parametrize("name", NAMES)
def test_openssl_opens_what_was_converted_before_it_was_encrypted(name: str, tmp_path: Path) -> None:
    """With `disc.transfer_syntax: explicit-le`: byte for byte the converted object, which its DICOMDIR tells of."""
    key, file = certificate(tmp_path / "practice", "practice")
    paths = make_study(tmp_path / "in", "ACC1", kinds={"ct": 1, "rle": 1, "jpeg_2000": 1})
    studies = passed(instances(paths))
    conversion = convert([each.arrival for each in studies.instances], tmp_path / "converted")
    disc_set = lay_out_set(
        studies,
        settings(tmp_path, disc={"transfer_syntax": "explicit-le"}),
        tmp_path / "disc",
        created=CREATED,
        medium=FORMATS[name].carrier or "dvd",
        envelopes=Envelopes(PASSWORD, recipients_of([file])),
        conversion=conversion,
    )
    image = tmp_path / f"disc{FORMATS[name].suffix}"
    prove(write_set(disc_set, FORMATS[name].opened(PASSWORD), [image]))
    folder = extract(image, tmp_path / "unpacked")
    made = {each.sop_instance_uid: each.path for each in conversion.of.values()}
    assert len(made) == 2
    for each in disc_set.layouts[0].files:
        if not each.inside:
            continue
        for opening in (["-pwri_password", PASSWORD], ["-inkey", str(key), "-recip", str(file)]):
            opened = _opened_by_openssl(folder / each.path, opening, tmp_path)
            if each.sop_instance_uid in made:
                assert opened == made[each.sop_instance_uid].read_bytes()
            if each.sop_instance_uid:
                assert dcmread(BytesIO(opened)).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "2 of 3 images were stored otherwise" in disc_set.layouts[0].conformance


def _opened_by_openssl(envelope: Path, opening: list[str], folder: Path) -> bytes:
    inner, whole, out = folder / "inner", folder / "whole", folder / "out"
    command: list[str | Path] = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", envelope]
    subprocess.run([*command, *opening, "-out", inner], check=True, capture_output=True)
    whole.write_bytes(_as_content_info(inner.read_bytes()))
    command = ["openssl", "cms", "-digest_verify", "-binary", "-inform", "DER", "-in", whole, "-out", out]
    subprocess.run(command, check=True, capture_output=True)
    return out.read_bytes()


def _as_content_info(digested: bytes) -> bytes:
    """DigestedData as a message by itself, which OpenSSL's command verifies (RFC 5652 3)."""

    def wrapped(tag: int, content: bytes) -> bytes:
        return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content

    return wrapped(0x30, bytes.fromhex("06092a864886f70d010705") + wrapped(0xA0, digested))


@pytest.mark.peer
def test_openssl_says_that_it_is_what_the_profile_wants(made: Made, tmp_path: Path) -> None:
    folder = extract(made.images["usb-cms"], tmp_path / "unpacked")
    printed = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", folder / INSTANCE],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for words in ("pkcs7-envelopedData", "pkcs7-digestData", "aes-256-cbc", "PBKDF2", "id-alg-PWRI-KEK", "version: 3"):
        assert words in printed
    assert printed.count("d.ktri") == 2 and printed.count("rsaEncryption") == 2 and printed.count("d.pwri") == 1


@pytest.mark.peer
def test_the_lines_of_the_readme_open_the_disc(made: Made, tmp_path: Path) -> None:
    folder = opened_as_its_readme_says(extract(made.images["zip-cms"], tmp_path / "unpacked"), PASSWORD)
    for file in made.layout.files:
        if file.inside:
            assert (folder / file.path).read_bytes() == made.plain[file.path]
    assert dcmread(folder / "DICOMDIR").DirectoryRecordSequence


@pytest.mark.peer
def test_what_openssl_has_encrypted_is_told_apart_from_ours(made: Made, tmp_path: Path) -> None:
    """Its content is data and no digest, which the profile doesn't allow."""
    folder = extract(made.images["zip-cms"], tmp_path / "unpacked")
    (tmp_path / "f").write_bytes(made.plain[INSTANCE])
    subprocess.run(
        ["openssl", "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", "-pwri_password", PASSWORD,
         "-in", tmp_path / "f", "-out", folder / INSTANCE],
        check=True, capture_output=True,
    )  # fmt: skip
    assert f"{INSTANCE} is no encrypted DICOM file that can be read." in (
        check_disc(folder, password=PASSWORD).findings
    )


def test_only_its_dicomdir_says_that_files_are_encrypted(made: Made, form: Format) -> None:
    with made.images[form.name].open("rb") as image:
        assert format_of(image.fileno()).name == form.name.removesuffix("-cms")
    assert envelopes.LARGEST_BYTES < 2**31
    assert Extent(0, 0) not in contents_of(form, made.images[form.name]).envelopes
