"""Requests to a DICOMweb server: who we are there, what its refusals mean in words, and the bounds of what it sends.

No error's words hold an address's query: a patient's name may stand there.
"""

from __future__ import annotations

import json
import math
import ssl
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpcore
import httpx

from mkiso.config.sources import DicomWeb
from mkiso.connections import Connections
from mkiso.errors import ConfigurationError, PacsBusy, PacsRefused, PacsSilent, PacsUnreachable
from mkiso.storage.room import size_words
from mkiso.trust import is_plain, trusting, why_unreachable, why_unusable

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_TOKEN_BYTES = 64 * 1024
RENEW_SECONDS = 30.0  # before a token ends
MAX_PAGE_BYTES = 4096  # of a refusal
_ALERTS = ("ALERT_HANDSHAKE_FAILURE", "CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Of RFC 8446 6.2, as OpenSSL names them: what a server says that wants a certificate of ours, or another one."""


class Access(httpx.Auth):
    """Says who we are: Basic, a bearer token, or one that an authorization server gives (RFC 6749 4.4)."""

    def __init__(self, settings: DicomWeb, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._lock = threading.Lock()
        self._token = ""
        self._ends = 0.0

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        settings = self._settings
        if settings.token_url:
            request.headers["Authorization"] = f"Bearer {self._granted()}"
        elif settings.user:
            name = httpx.BasicAuth(settings.user, secret_of(settings))
            request = next(name.auth_flow(request))
        elif settings.has_secret:
            request.headers["Authorization"] = f"Bearer {secret_of(settings)}"
        answer = yield request
        if answer.status_code == 401 and settings.token_url:  # it was withdrawn before its end
            self._ends = 0.0
            request.headers["Authorization"] = f"Bearer {self._granted()}"
            yield request

    def _granted(self) -> str:
        with self._lock:
            if time.monotonic() >= self._ends:
                self._token, seconds = self._new_token()
                self._ends = time.monotonic() + max(0.0, seconds - RENEW_SECONDS)
            return self._token

    def _new_token(self) -> tuple[str, float]:
        """A token, and how many seconds it is good for. Raises PacsUnreachable, PacsRefused."""
        settings = self._settings
        who = f"The token server of {named(settings)}"
        form = {"grant_type": "client_credentials", **({"scope": settings.scope} if settings.scope else {})}
        name = httpx.BasicAuth(settings.user, secret_of(settings))
        try:
            with (
                open_client(settings, auth=name, connections=self._connections) as client,
                client.stream("POST", settings.token_url, data=form) as answer,
            ):
                if answer.is_server_error:
                    raise PacsUnreachable(f"{who} answers with HTTP {answer.status_code}. Try again in a moment.")
                ends = time.monotonic() + settings.response_timeout_seconds
                told = json.loads(b"".join(pieces_of(answer, ends, MAX_TOKEN_BYTES)))
            token, seconds = told["access_token"], float(told.get("expires_in", 60))
        except httpx.HTTPError as error:
            raise _by_certificate(settings, who, error) or PacsUnreachable(f"{who} {_reason(error)}.") from None
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            raise PacsRefused(
                f"{who} gives no token. Check user, secret_file, scope and token_url in {settings.section}."
            ) from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise PacsRefused(f"{who} gives a token that can't be sent.")
        return token, seconds


def secret_of(settings: DicomWeb) -> str:
    """The password, token or client secret as it is now. Raises ConfigurationError."""
    if settings.secret_file is None:
        return settings.secret.get_secret_value()
    try:
        text = settings.secret_file.read_text(encoding="utf-8")[:MAX_TOKEN_BYTES].strip()
    except (OSError, UnicodeError):
        text = ""
    if not text or not text.isprintable() or not text.isascii():
        raise ConfigurationError(
            f"{settings.section}.secret_file can't be read, is empty, or holds what can't be sent."
        )
    return text


def named(settings: DicomWeb) -> str:
    """The server, within a sentence."""
    return f"the DICOMweb server at {urlsplit(settings.base_url).netloc}"


def open_client(
    settings: DicomWeb,
    until: float | None = None,
    limit_seconds: float | None = None,
    auth: httpx.Auth | None = None,
    connections: Connections | None = None,
) -> httpx.Client:
    """A client that follows no redirect and takes no proxy from the environment; its connections are kept in
    `connections`. Raises ConfigurationError.
    """
    connections = connections or Connections()
    rest = limit_seconds if until is None else max(until - time.monotonic(), 0.1)
    connect, response = settings.connect_timeout_seconds, settings.response_timeout_seconds
    if rest is not None:
        connect, response = min(connect, rest / 2), min(response, rest)
    limits = httpx.Limits(max_connections=settings.parallel + 1)
    return httpx.Client(
        auth=auth or Access(settings, connections),
        event_hooks={"request": [connections.follow]},
        transport=_Timely(trust_of(settings), limits, http2=settings.http2),
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(response, connect=connect),
        follow_redirects=False,
        trust_env=False,
    )


class _Timely(httpx.BaseTransport):
    """HTTP/1.1, or HTTP/2 where TLS agrees on it (ALPN), whose answers begin and go on in time. With HTTP/2 each thread
    has connections of its own: httpcore changes the state of one outside its locks, so streams of two threads could
    stall each other.
    """

    def __init__(self, trust: ssl.SSLContext | bool, limits: httpx.Limits, *, http2: bool) -> None:
        self._made_with: dict[str, Any] = {"verify": trust, "limits": limits, "http2": http2, "trust_env": False}
        self._patience = _Patience()
        self._of_thread = threading.local()
        self._all: list[httpx.HTTPTransport] = []
        self._shared = None if http2 else self._made()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._shared or getattr(self._of_thread, "transport", None)
        if transport is None:
            transport = self._of_thread.transport = self._made()
        limits_of = request.extensions["timeout"]
        self._patience.begin(limits_of["read"], limits_of["connect"])
        answer = transport.handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        answer.stream = _Pieces(answer.stream, self._patience, limits_of["read"])
        return answer

    def close(self) -> None:
        for transport in self._all:
            transport.close()

    def _made(self) -> httpx.HTTPTransport:
        transport = httpx.HTTPTransport(**self._made_with)
        transport._pool._network_backend = _Watched(self._patience)
        self._all.append(transport)
        return transport


class _Patience(threading.local):
    """Until when the answer's beginning, or its next piece, has to come in a thread: httpx's limit is for each read,
    and a server that sends PING frames alone, or a byte of its header at a time, ends every one of them.

    It ends a read, and not the connections (mkiso.connections.Connections.ending_after): other requests go on over
    these, and an answer may take as long as its pieces come.
    """

    _ends = math.inf

    def begin(self, *seconds: float | None) -> None:
        self._ends = time.monotonic() + sum(math.inf if each is None else each for each in seconds)

    def rest(self, timeout: float | None) -> float | None:
        """Of a read that may take `timeout`. Raises httpcore.ReadTimeout."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer is no longer waited for")
        return timeout if left == math.inf else left if timeout is None else min(timeout, left)


class _Pieces(httpx.SyncByteStream):
    """A body, each piece of which has to come within a time."""

    def __init__(self, stream: httpx.SyncByteStream, patience: _Patience, seconds: float | None) -> None:
        self._stream, self._patience, self._seconds = stream, patience, seconds

    def __iter__(self) -> Iterator[bytes]:
        self._patience.begin(self._seconds)
        for piece in self._stream:
            yield piece
            self._patience.begin(self._seconds)

    def close(self) -> None:
        self._stream.close()


class _Watched(httpcore.SyncBackend):
    """Connections whose reads end with somebody's patience."""

    def __init__(self, patience: _Patience) -> None:
        self._patience = patience

    def connect_tcp(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        return _WatchedStream(super().connect_tcp(*arguments, **named), self._patience)


class _WatchedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, patience: _Patience) -> None:
        self._stream, self._patience = stream, patience

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._patience.rest(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        return _WatchedStream(self._stream.start_tls(*arguments, **named), self._patience)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def trust_of(settings: DicomWeb) -> ssl.SSLContext | bool:
    """Whose certificates are trusted there, and our own shown; False without TLS. Raises ConfigurationError."""
    if all(is_plain(url) for url in (settings.base_url, settings.token_url) if url):
        return False  # reading the system's authorities takes longer than a question
    try:
        trust = trusting(settings.authority)
        if settings.certificate and settings.key:
            trust.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:
        why = why_unusable(error, authority=settings.authority, certificate=settings.certificate, key=settings.key)
        raise ConfigurationError(f"{settings.section} can't use its authority, certificate and key: {why}.") from None
    return trust


@contextmanager
def asking(
    client: httpx.Client, settings: DicomWeb, path: str, accept: str, query: Sequence[tuple[str, str]] = ()
) -> Iterator[httpx.Response]:
    """A GET below the base address; what goes wrong in the `with` is told in words. Raises PacsUnreachable (also where
    the connection is lost), PacsRefused, PacsBusy, PacsSilent.
    """
    who = named(settings)
    # A wildcard stands as it is (RFC 3986 3.4): Orthanc 1.12.7 doesn't decode what is percent-encoded.
    asked = f"?{urlencode(query, safe='*?', quote_via=quote)}" if query else ""
    try:
        with client.stream(
            "GET",
            settings.base_url.rstrip("/") + path + asked,
            headers={"Accept": accept},
        ) as answer:
            _refuse(settings, answer)
            yield answer
    except httpx.ConnectTimeout:
        raise PacsUnreachable(
            f"{_first(who)} takes no connection. Check {settings.section}.base_url, and that it runs."
        ) from None
    except httpx.TimeoutException:
        raise PacsSilent(f"{_first(who)} took the request and didn't answer in time. Try again.") from None
    except httpx.ConnectError as error:
        raise _by_certificate(settings, _first(who), error) or PacsUnreachable(
            f"{_first(who)} {_reason(error)}. Check {settings.section}.base_url, and that it runs."
        ) from None
    except httpx.HTTPError as error:
        raise _by_certificate(settings, _first(who), error) or Lost(
            f"{_first(who)} {_reason(error)}. Try again; if it stays, look at its log."
        ) from None


def no_answers(settings: DicomWeb, status: int) -> PacsRefused | PacsUnreachable:
    """What it means that a question is answered so."""
    who = _first(named(settings))
    if status in (502, 504):  # RFC 9110 15.6.3, 15.6.5
        return PacsUnreachable(f"{who} doesn't answer the proxy before it (HTTP {status}). Check that it runs.")
    return PacsRefused(
        f"{who} answers QIDO-RS with HTTP {status}. Check {settings.section}.base_url, and look at its log."
    )


class Lost(PacsUnreachable):
    """The connection ended before the answer did, or sent what is no HTTP."""


def pieces_of(answer: httpx.Response, ends: float, most: int = MAX_BODY_BYTES) -> Iterator[bytes]:
    """The body as it comes, within a bound and until a moment of the monotonic clock. Raises PacsRefused,
    PacsSilent.
    """
    size = 0
    for piece in answer.iter_raw():
        size += len(piece)
        if size > most:
            raise PacsRefused(f"A DICOMweb server sends an answer of more than {size_words(most)}. Look at its log.")
        if time.monotonic() > ends:  # httpx's limit is for each read, and a server may send a byte at a time
            raise PacsSilent("The answer of a DICOMweb server takes too long. Look at its log.")
        yield piece


def _refuse(settings: DicomWeb, answer: httpx.Response) -> None:
    """Raise for what says that nobody may ask, or ask now, or that it isn't the place to ask."""
    status, who = answer.status_code, _first(named(settings))
    if status in (401, 403, 407):
        raise PacsRefused(
            f"{who} refuses us (HTTP {status}). Check user and secret_file in {settings.section}, and our rights there."
        )
    if status == 400 and _wants_certificate(answer):
        raise _refuses_certificate(settings, who)
    if 300 <= status < 400:
        raise PacsRefused(
            f"{who} leads to another place (HTTP {status}), and mkiso follows nobody there. Correct "
            f"{settings.section}.base_url."
        )
    if status == 406:
        raise PacsRefused(f"{who} can't send images as they lie there (HTTP 406). Have transfer-syntax=* allowed.")
    if status in (429, 503):
        raise PacsBusy(f"{who} has no time now (HTTP {status}). Try again in a moment.")
    if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise PacsRefused(f"{who} packs its answers although nobody asked for that. Correct its configuration.")


def _wants_certificate(answer: httpx.Response) -> bool:
    """Whether it refuses our certificate, or that we have none, after the handshake: so nginx does, and its page says
    it.
    """
    if answer.url.scheme != "https" or not answer.headers.get("content-type", "").startswith("text/html"):
        return False
    page = next(answer.iter_raw(MAX_PAGE_BYTES), b"")
    return b"SSL certificate" in page


def _by_certificate(settings: DicomWeb, who: str, error: httpx.HTTPError) -> PacsRefused | None:
    """What TLS says of a certificate, theirs or ours: it stays until somebody changes it. None for all else."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return PacsRefused(
            f"{who} has a certificate that isn't trusted ({cause.verify_message}). Check authority in "
            f"{settings.section}, the name in its address, and that certificate."
        )
    if cause is not None and any(alert in (cause.reason or "") for alert in _ALERTS):
        return _refuses_certificate(settings, who)
    return None


def _refuses_certificate(settings: DicomWeb, who: str) -> PacsRefused:
    section = settings.section
    if settings.certificate is None:
        return PacsRefused(f"{who} asks for a certificate of mkiso's. Set certificate and key in {section}.")
    return PacsRefused(
        f"{who} doesn't take mkiso's certificate. Check certificate and key in {section}, that it hasn't expired, and "
        "that the server trusts who signed it."
    )


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"can't be reached ({why_unreachable(error)})"
    if isinstance(error, httpx.TimeoutException):
        return "didn't answer in time"
    return "ended the connection, or sent what is no HTTP"


def _first(words: str) -> str:
    return words[0].upper() + words[1:]
