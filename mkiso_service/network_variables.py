"""The variables of the environment that say how the network is reached: proxies and trusted certificates.

httpx, and with it Prefect's client, refuses to make any client where one of them is wrong, whatever address is meant:
also for this machine, where no proxy is asked and no certificate looked at.
"""

from __future__ import annotations

import logging
import os
import ssl

from mkiso.errors import ConfigurationError
from mkiso.trust import why_unusable

PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
"""As urllib reads them, in upper and lower case."""
log = logging.getLogger("mkiso")


def require_usable() -> None:
    """Take proxies that httpx can't use out of this process's environment, and warn of them; what else is asked goes
    directly. Raises ConfigurationError for certificates that can't be read: without that variable others were trusted.
    """
    for name, value in tuple(os.environ.items()):
        if name.lower() in PROXIES and (why := _why_no_proxy(value)):
            del os.environ[name]
            log.warning("%s of the environment is left out: %s.", name, why)
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            why = why_unusable(error, SSL_CERT_FILE=file)
            raise ConfigurationError(
                f"The environment's certificates can't be used: {why}. Name a file of certificates, or remove "
                "the variable SSL_CERT_FILE."
            ) from None


def _why_no_proxy(url: str) -> str:
    """Why httpx can't use this proxy, in words; empty where it can. The address may have a password in it."""
    if not url:
        return ""
    import httpx

    try:
        none_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        httpx.Client(proxy=url if "://" in url else f"http://{url}", verify=none_trusted).close()
    except ImportError:
        return "it names a SOCKS proxy, and mkiso uses only those of http and https"
    except (ValueError, httpx.InvalidURL):
        return "it is no address of a proxy, such as http://proxy.example.org:3128"
    return ""
