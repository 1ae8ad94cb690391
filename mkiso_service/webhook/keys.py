"""The API key and its comparison, which takes the same time however much of a wrong key is right and however long it
is.
"""

from __future__ import annotations

import hashlib
import hmac

from mkiso.config.settings import Auth


class Keys:
    """Knows the digest of the configured key. Where authentication is off, none is needed."""

    def __init__(self, auth: Auth) -> None:
        self.needed = auth.enabled
        self._key = auth.api_key.get_secret_value().encode()

    def right(self, sent: bytes) -> bool:
        """Whether this is the key. Digests are compared, since compare_digest tells lengths apart."""
        return self.needed and hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(self._key).digest())

    def sign(self, message: bytes) -> str:
        """A signature that only this key can make, in hexadecimal: sessions end when the key is changed."""
        return hmac.new(b"mkiso session\0" + self._key, message, hashlib.sha256).hexdigest()
