"""Pseudonyms by a site's secret: the same patient, study or image has the same one on every copy, and nobody finds the
way back who doesn't have the secret. Nothing of it is stored.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode
from datetime import date, timedelta
from uuid import UUID

_LEAST_DAYS, _DAYS = 365, 3650
WORD = "DEIDENTIFIED"


class Pseudonyms:
    """Of one patient: `issuer` is that of the Patient ID, which alone isn't one person's."""

    def __init__(self, secret: str, patient_id: str, issuer: str) -> None:
        self._secret = secret.encode()
        self._patient = f"{issuer}\0{patient_id}"
        self.patient_id = "D" + b32encode(self._mac("patient", self._patient)[:10]).decode()
        """17 characters of the default repertoire: 80 bits."""
        self._earlier = timedelta(_LEAST_DAYS + int.from_bytes(self._mac("days", self._patient)[:8]) % _DAYS)

    @property
    def patient_name(self) -> str:
        """A Person Name that says what it is."""
        return f"{WORD}^{self.patient_id}"

    def uid(self, uid: str) -> str:
        """Another UID in the place of this one (PS3.5 B.2: of a UUID, here of version 8, RFC 9562 5.8)."""
        digits = int.from_bytes(self._mac("uid", uid)[:16])
        digits = digits & ~(0xF << 76) | 8 << 76
        digits = digits & ~(0x3 << 62) | 2 << 62
        return f"2.25.{UUID(int=digits).int}"

    def day(self, text: str) -> str:
        """A date (DA, or the beginning of DT) as many days earlier as all dates of this patient; empty where it is
        none.
        """
        try:
            shifted = date(int(text[:4]), int(text[4:6]), int(text[6:8])) - self._earlier
        except (ValueError, OverflowError):
            return ""
        return f"{shifted:%Y%m%d}" if shifted.year >= 1000 else ""

    def _mac(self, use: str, text: str) -> bytes:
        return hmac.new(self._secret, f"mkiso {use}\0{text}".encode(), hashlib.sha256).digest()
