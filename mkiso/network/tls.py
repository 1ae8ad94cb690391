"""TLS for associations (PS3.15 B.12)."""

from __future__ import annotations

import ssl

from mkiso.config.settings import Tls
from mkiso.errors import ConfigurationError
from mkiso.trust import why_unusable


def acceptor_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 and newer; a client's certificate is required where an authority is set. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(tls.certificate), str(tls.key))
        if tls.authority is not None:
            context.load_verify_locations(str(tls.authority))
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        why = why_unusable(error, certificate=tls.certificate, key=tls.key, authority=tls.authority)
        raise ConfigurationError(f"receiver.tls can't be used: {why}. Check certificate, key and authority.") from None
    return context
