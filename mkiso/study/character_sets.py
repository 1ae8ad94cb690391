"""Specific Character Set (PS3.3 C.12.1.1.2): what its values mean, and decoding that says whether every character
could be read.

pydicom reads the default repertoire as Latin-1 and any name that Python has a codec for; here a set is what the
standard says, or what a name of another kind says that means one thing only, and nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

UNICODE = b"ISO_IR 192"
REPLACEMENT = "\ufffd"
_DEFAULT, _JIS_X_0201 = "ascii", "jis_x0201"
_BY_NUMBER = {  # ISO-IR, Tables C.12-2 to C.12-4
    6: _DEFAULT, 13: _JIS_X_0201, 58: "gb2312", 87: "iso2022_jp", 100: "latin_1", 101: "iso8859_2", 109: "iso8859_3",
    110: "iso8859_4",
    126: "iso8859_7", 127: "iso8859_6", 138: "iso8859_8", 144: "iso8859_5", 148: "iso8859_9", 149: "euc_kr",
    159: "iso2022_jp_2",
    166: "tis_620", 203: "iso8859_15",
}  # fmt: skip
_WHOLE = {b"ISO_IR 192": "utf-8", b"GB18030": "gb18030", b"GBK": "gbk"}  # Table C.12-5: without code extensions
TRAILING_DELIMITERS = frozenset({b"GB18030", b"GBK"})
"""Sets whose characters may end in the byte of a delimiter."""
_FURTHER_ONLY = frozenset({58, 87, 149, 159})  # Table C.12-4
_ESCAPES = {  # Tables C.12-3 and C.12-4
    b"\x1b(B": _DEFAULT, b"\x1b(J": _JIS_X_0201, b"\x1b)I": _JIS_X_0201, b"\x1b-A": "latin_1", b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4", b"\x1b-F": "iso8859_7", b"\x1b-G": "iso8859_6", b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5", b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620", b"\x1b-b": "iso8859_15", b"\x1b$B": "iso2022_jp", b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)C": "euc_kr", b"\x1b$)A": "gb2312",
}  # fmt: skip
_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
_DELIMITER = re.compile(rb"[\n\f\r\t\\^=]")  # PS3.5 6.1.2.5.3: back to the first set after these
_NO_CHARACTERS = re.compile("[\x1b\x80-\x9f]")
"""Escape sequences that mean nothing, and characters that Windows has where DICOM's sets have none."""
_TERM = re.compile(rb"ISO[ _-]?(2022)?[ _-]?(?:IR)?[ _-]?(\d{1,3})")
_UTF_8 = re.compile(rb"UTF[ _-]?8")
_ELSEWHERE = (  # names that no table of the standard has
    (re.compile(r"(?:cp|windows|win)(874|125\d|932|936|949|950)"), "cp{}"),
    (re.compile(r"iso8859(1[013456]|[1-9])"), "iso8859_{}"),
    (re.compile(r"latin(1)"), "latin_{}"),
    (re.compile(r"koi8([ru])"), "koi8_{}"),
    (re.compile(r"tis(620)"), "tis_{}"),
    (re.compile(r"euc(kr|jp)"), "euc_{}"),
    (re.compile(r"(big5|gb2312)"), "{}"),
    (re.compile(r"shift(jis)"), "shift_{}"),
)


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """`codecs` are Python's, the first for what no escape sequence stands before, None where it is unknown. `term`
    is the value as the standard
    spells it, empty for the default repertoire, None where the standard has no such value."""

    codecs: tuple[str | None, ...]
    term: bytes | None

    @property
    def extends(self) -> bool:
        """Whether escape sequences may switch to another set (ISO 2022)."""
        return len(self.codecs) > 1 or (self.term or b"").startswith(b"ISO 2022")

    def decode(self, value: bytes) -> tuple[str, bool]:
        """The text of these bytes, and whether every character could be read; what could not is U+FFFD."""
        text = "".join(self._decode(fragment) for fragment in _FRAGMENT.findall(value))
        text = _NO_CHARACTERS.sub(REPLACEMENT, text)
        return text, REPLACEMENT not in text

    def names_sets_of(self, value: bytes) -> bool:
        """Whether each escape sequence in these bytes is of a set that is named; decoding takes that of ASCII in any
        case."""
        escapes = [fragment for fragment in _FRAGMENT.findall(value) if fragment.startswith(b"\x1b")]
        named = {*self.codecs, *([_DEFAULT] if self.codecs[0] != _JIS_X_0201 else [])}
        return all(_ESCAPES.get(escape[:4]) in named or _ESCAPES.get(escape[:3]) in named for escape in escapes)

    def encode(self, text: str) -> bytes | None:
        """The text without escape sequences; None where that can't be done."""
        if not self.term or self.extends or self.codecs[0] in (None, _JIS_X_0201):
            return None
        try:
            return text.encode(str(self.codecs[0]))
        except UnicodeEncodeError:
            return None

    def _decode(self, fragment: bytes) -> str:
        first = self.codecs[0]
        if not fragment.startswith(b"\x1b"):
            return _decoded(fragment, first)
        escape = fragment[:4] if fragment[:4] in _ESCAPES else fragment[:3]
        codec = _ESCAPES.get(escape)
        if not self.extends or not (codec == _DEFAULT or (codec and codec in self.codecs)):
            return REPLACEMENT + _decoded(fragment[1:], first)
        if codec in ("iso2022_jp", "iso2022_jp_2"):  # Python wants to see the escape sequence
            return _decoded(fragment, codec)
        rest = fragment[len(escape) :]
        if codec == _DEFAULT:  # G0 alone is switched, what is in G1 stays (PS3.5 6.1.2.5.1)
            return _decoded(rest, _DEFAULT if rest.isascii() else first)
        end = _DELIMITER.search(rest)
        split = end.start() if end else len(rest)
        return _decoded(rest[:split], codec) + _decoded(rest[split:], first)


DEFAULT_REPERTOIRE = CharacterSet((_DEFAULT,), b"")


@lru_cache(maxsize=256)
def character_set(values: bytes) -> CharacterSet:
    """What the values of (0008,0005) mean, misspelled ones as far as they mean one thing only."""
    first, *others = (value.strip(b" \x00") for value in values.split(b"\\"))
    others = [other for other in others if other]
    if not others:
        return _single(first)
    numbers = [_number(value) if value else 6 for value in (first, *others)]
    known = [number for number in numbers if number in _BY_NUMBER]
    if known == numbers and numbers[0] not in _FURTHER_ONLY:
        terms = [b"ISO 2022 IR %d" % number for number in known]
        return CharacterSet(
            tuple(_BY_NUMBER[number] for number in known), b"\\".join([terms[0] if first else b"", *terms[1:]])
        )
    return CharacterSet((_single(first).codecs[0], *(_BY_NUMBER[number] for number in known)), None)


def is_utf8(value: bytes) -> bool:
    """Whether the bytes are well-formed UTF-8, which text in another 8-bit character set hardly ever is."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _single(value: bytes) -> CharacterSet:
    spelled = value.upper()
    number = _number(spelled)
    if number == 192 or _UTF_8.fullmatch(spelled):
        spelled = UNICODE
    if spelled in _WHOLE:
        return CharacterSet((_WHOLE[spelled],), spelled)
    if not value or number == 6:
        return DEFAULT_REPERTOIRE
    if number in _FURTHER_ONLY:  # as if the empty first value were there
        return CharacterSet((_DEFAULT, _BY_NUMBER[number]), b"\\ISO 2022 IR %d" % number)
    if number in _BY_NUMBER:
        return CharacterSet((_BY_NUMBER[number],), (b"ISO 2022 IR %d" if b"2022" in spelled else b"ISO_IR %d") % number)
    return CharacterSet((_named_elsewhere(value),), None)


def _number(value: bytes) -> int:
    spelled = _TERM.fullmatch(value.upper())
    return int(spelled.group(2)) if spelled else -1


def _named_elsewhere(value: bytes) -> str | None:
    name = re.sub(r"[ _-]", "", value.decode("ascii", "replace")).lower()
    return next(
        (codec.format(found.group(1)) for pattern, codec in _ELSEWHERE if (found := pattern.fullmatch(name))), None
    )


def _decoded(value: bytes, codec: str | None) -> str:
    if codec is None:
        return value.decode("ascii", "replace")
    if codec == _JIS_X_0201:  # one byte each: ASCII's place, and half-width katakana
        return "".join(
            chr(byte) if byte < 0x80 else chr(0xFEC0 + byte) if 0xA1 <= byte <= 0xDF else REPLACEMENT for byte in value
        )
    return value.decode(codec, "replace")
