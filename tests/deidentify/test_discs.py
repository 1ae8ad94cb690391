"""A de-identified disc from end to end: no file on it says whose it is, and each page says what it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from mkiso.config.disc import Deidentified
from mkiso.deidentify.copies import deidentified
from mkiso.demo.phantoms import write_phantoms
from mkiso.errors import NotDeidentifiable, SelectionNotTold
from mkiso.formats.proven_set import manifests_of, prove, write_set
from mkiso.formats.registry import FORMATS
from mkiso.languages import languages
from mkiso.media.disc_set import lay_out_set
from mkiso.media.envelopes import Envelopes
from mkiso.media.presented import states_of
from mkiso.media.rendering import Pictures, Rendered, Renderer
from mkiso.publishers import publisher_of
from mkiso.publishers.orders import require_told
from mkiso.study.models import Instance, Patient
from peers.discs import extract
from tests.media.discs import CREATED, instances, passed, settings

pytestmark = pytest.mark.usefixtures("forked_decoders")

OUTSIDE = ("README", "INDEX", "OPEN_ZIP")
WORDS = {
    "en": "De-identified copy. Not a patient's disc.",
    "de": "De-identifizierte Kopie. Keine Disc eines Patienten.",
    "es": "Copia desidentificada. No es el disco de un paciente.",
    "fr": "Copie désidentifiée. Ce n’est pas le disque d’un patient.",
    "th": "สำเนาที่ลบข้อมูลระบุตัวตนแล้ว ไม่ใช่แผ่นของผู้ป่วย",
}


def rendered(found: Collection[Instance], folder: Path) -> Mapping[str, Rendered]:
    renderer = Renderer(folder)
    try:
        return renderer.finish([each.arrival for each in found], states=states_of(found)).of
    finally:
        renderer.close()


def test_no_file_of_a_disc_says_whose_it_is_and_each_page_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "phantom").mkdir()
    phantoms = write_phantoms(tmp_path / "phantom")
    files = [file for file in phantoms if file.name[7] in "12"][28:62:3]
    [key_image] = [file for file in phantoms if file.name[7] == "8"]
    known = Patient("DEMO-0001", "Phantom^Ada", "19640229", "F")
    found = [dcmread(file, stop_before_pixels=True) for file in files]
    site = settings(tmp_path, disc={"institution": "Example Hospital", "contact": "+49 30 123"})
    wanted = Deidentified.model_validate({"secret": "a secret of this site that nobody guesses"})
    copied = deidentified(
        passed(instances(files), known),
        tmp_path / "copies",
        wanted,
        lambda arrivals: {},
    )
    originals = instances([*files, key_image])
    with pytest.raises(NotDeidentifiable):
        deidentified(passed(originals, known), tmp_path / "none", wanted, lambda arrivals: {})
    seen = rendered(originals, tmp_path / "seen")
    assert any(picture.annotations.texts for made in seen.values() for picture in made.result.pictures)
    made = rendered(copied.instances, tmp_path / "pictures")
    pictures = Pictures({**seen, **made})
    disc_set = lay_out_set(copied, site, tmp_path / "disc", created=CREATED, medium="cd", pictures=pictures)
    proven = prove(write_set(disc_set, FORMATS["iso"], [tmp_path / "disc.iso"]))
    [manifest] = manifests_of(proven, "0b0a1b2c-0000-4000-8000-000000000001", site)
    folder = extract(tmp_path / "disc.iso", tmp_path / "out")
    texts = (
        "Phantom",
        "DEMO-0001",
        "19640229",
        "20260112",
        "Example",
        "+49 30",
        "after a fall",
        "Head, axial",
        "Bleeding",
    )
    uids = {element.value for image in found for element in image.iterall() if element.VR == "UI"}
    secrets = [text.lower().encode() for text in texts]
    secrets += [str(uid).encode() for uid in uids if not uid.startswith("1.2.840.10008")]
    on_disc = [path for path in folder.rglob("*") if path.is_file()]
    for path in [*on_disc, tmp_path / "disc.iso"]:
        content = path.read_bytes().lower()
        assert not [secret for secret in secrets if secret in content], path
    assert len(made) == len(files)
    assert any(path.suffix == ".JPG" for path in on_disc)
    for language in languages():
        spoken = site.as_asked(language)
        laid_out = lay_out_set(copied, spoken, tmp_path / language, created=CREATED, medium="cd", pictures=pictures)
        pages = [file for file in laid_out.layouts[0].files if file.path.suffix in (".HTM", ".TXT")]
        assert len(pages) > 5
        for page in pages:
            text = page.source.read_text("utf-8-sig").replace("&#39;", "'") if page.source else ""
            assert page.path.name == "SHA256.TXT" or WORDS[language] in " ".join(text.split()), page
            told = re.sub(r"\b[0-9a-f]{64}\b", "", text)  # a hash has each year in it now and then
            assert not [word for word in ("Ada", "Otto", "1964") if word in told], page
    sealed = lay_out_set(copied, site, tmp_path / "s", created=CREATED, medium="cd", envelopes=Envelopes("12345-67890"))
    locked = lay_out_set(copied, site, tmp_path / "l", created=CREATED, medium="zip-encrypted")
    outside = [file for made in (sealed, locked) for file in made.layouts[0].files if file.path.stem in OUTSIDE]
    assert len(outside) == 6
    for page in outside:
        text = page.source.read_text("utf-8-sig").replace("&#39;", "'") if page.source else ""
        assert WORDS["en"] in " ".join(text.split()), page
        assert "Example Hospital" not in text, page
    assert manifest.deidentified and manifest.volume_id.startswith("DEID_")
    assert manifest.filename == f"DEIDENTIFIED {manifest.patient_id}.iso"
    assert manifest.patient_name == f"DEIDENTIFIED^{manifest.patient_id}"
    assert manifest.accession_numbers == () and set(manifest.studies.values()) == {""}
    assert len(list(FileSet(folder / "DICOMDIR"))) == len(files)
    with pytest.raises(SelectionNotTold, match="aren't printed"):
        require_told(publisher_of("rimage", site), copied.retrieved.found)
