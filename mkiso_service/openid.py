"""Sign-in by OpenID Connect: the authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0 3.1, RFC
7636, RFC 9207), against one provider. Authlib builds and judges the messages, joserfc the signatures.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from mkiso.config.access import KEY_USER, SHARED_USER, SignIn
from mkiso.connections import Connections
from mkiso.errors import NotAllowed, ProviderUnavailable, SignInFailed
from mkiso.study.identity import one_line
from mkiso.study.models import count_words
from mkiso.trust import trusting, why_unreachable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Of ID tokens: signatures by a key that only the provider has; never none, never a secret that is shared."""
CALLBACK = "/session/callback"
MAX_BYTES = 1_048_576
TIMEOUT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
KEPT_SECONDS = 3600.0
MAX_TOKEN = 8192
MAX_NAME = 200
MAX_USER = 255  # OpenID Connect Core 1.0, 2 (sub)


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that has begun: what only this browser and the provider's answer know."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Pending:
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider has signed in, and their roles here."""

    user: str
    name: str
    roles: tuple[str, ...]
    id_token: str


class NoRole(NotAllowed):
    """The provider knows who this is, and they have no role here. `id_token` ends their session there."""

    def __init__(self, words: str, id_token: str) -> None:
        super().__init__(words)
        self.id_token = id_token


class Provider:
    """The provider of `sign_in`; its description and keys are asked for once an hour. Safe to use from several
    threads.
    """

    def __init__(self, sign_in: SignIn, public_url: str) -> None:
        self._settings = sign_in
        self._home = f"{public_url.rstrip('/')}/"
        self._callback = f"{public_url.rstrip('/')}{CALLBACK}"
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, Any]] = (float("-inf"), {})
        self._keys: KeySet | None = None

    def begin(self, pending: Pending, *, anew: bool = False) -> str:
        """The provider's address where a person signs in; `anew`: it asks who they are, even if it knows somebody.
        Raises ProviderUnavailable.
        """
        sign_in = self._settings
        uri: str = prepare_grant_uri(
            self._endpoint("authorization_endpoint"),
            sign_in.client_id,
            "code",
            redirect_uri=self._callback,
            scope=" ".join(sign_in.scopes),
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
            **({"prompt": "login"} if anew else {}),  # OpenID Connect Core 1.0 3.1.2.1
        )
        return uri

    def finish(self, pending: Pending, state: str, code: str, issuer: str) -> Person:
        """Whom the provider has signed in. Raises SignInFailed, NoRole, ProviderUnavailable."""
        if not secrets.compare_digest(state.encode(), pending.state.encode()) or not code:
            raise SignInFailed("This answer belongs to no sign-in that this browser has begun. Sign in again.")
        told = self._metadata()
        promises = told.get("authorization_response_iss_parameter_supported") is True
        if (issuer or promises) and issuer != told["issuer"]:
            raise SignInFailed("The answer comes from another provider than the one that was asked. Sign in again.")
        tokens = self._exchange(code, pending.verifier)
        id_token, access_token = str(tokens.get("id_token", "")), str(tokens.get("access_token", ""))
        claims = self._claims(id_token, access_token, pending.nonce)
        if _at(claims, self._settings.role_claim) is None and access_token and "userinfo_endpoint" in told:
            claims = {**self._userinfo(access_token, str(claims["sub"])), **claims}
        return self._person(claims, id_token)

    def end(self, id_token: str) -> str:
        """Where a person's session at the provider ends (OpenID Connect RP-Initiated Logout 1.0); empty where it offers
        none, or can't be asked.
        """
        try:
            address = self._endpoint("end_session_endpoint")
        except ProviderUnavailable:
            return ""
        told = {"client_id": self._settings.client_id, "post_logout_redirect_uri": self._home}
        if id_token:
            told["id_token_hint"] = id_token
        return f"{address}{'&' if '?' in address else '?'}{urlencode(told)}"

    def check(self) -> str:
        """What was seen of the provider, in words. Raises ProviderUnavailable."""
        with self._lock:
            self._known, self._keys = (float("-inf"), {}), None
        self._endpoint("authorization_endpoint")
        self._endpoint("token_endpoint")
        number = len(self._key_set(anew=True).keys)
        ends = "signs out there too" if "end_session_endpoint" in self._metadata() else "can't sign anybody out there"
        return f"answers with {count_words(number, 'key')}; mkiso {ends}"

    def _metadata(self) -> dict[str, Any]:
        with self._lock:
            age, known = time.monotonic() - self._known[0], self._known[1]
        if age <= KEPT_SECONDS:
            return known
        issuer = self._settings.issuer
        told = self._ask("GET", get_well_known_url(issuer, external=True))
        if told.get("issuer") != issuer:
            raise ProviderUnavailable(
                f"The sign-in provider calls itself {str(told.get('issuer'))[:200]!r}: if that is right, set "
                "sign_in.issuer to exactly that."
            )
        with self._lock:
            self._known = (time.monotonic(), told)
        return told

    def _endpoint(self, name: str) -> str:
        address = str(self._metadata().get(name, ""))
        if not is_safe(address):
            raise ProviderUnavailable(f"The sign-in provider names no {name} that can be used (https).")
        return address

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        sign_in = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        secret = sign_in.client_secret.get_secret_value()
        methods = self._metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if not secret:
            form["client_id"] = sign_in.client_id
        elif "client_secret_basic" in methods:
            pair = f"{quote_plus(sign_in.client_id)}:{quote_plus(secret)}"  # RFC 6749 2.3.1
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": sign_in.client_id, "client_secret": secret}
        return self._ask("POST", self._endpoint("token_endpoint"), headers, form)

    def _claims(self, id_token: str, access_token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is right (OpenID Connect Core 1.0 3.1.3.7)."""
        try:
            try:
                token = jwt.decode(id_token, self._key_set(), algorithms=ALGORITHMS)
            except (JoseError, ValueError):  # signed with a key that is newer than those we know
                token = jwt.decode(id_token, self._key_set(anew=True), algorithms=ALGORITHMS)
            wanted = {
                "iss": {"essential": True, "value": self._settings.issuer},
                "aud": {"essential": True, "value": self._settings.client_id},
            }
            known = {"nonce": nonce, "client_id": self._settings.client_id, "access_token": access_token}
            claims = CodeIDToken(token.claims, token.header, wanted, known)
            claims.validate(leeway=self._settings.clock_skew_seconds)
        except (JoseError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise SignInFailed(
                f"The provider's answer isn't right ({type(error).__name__}). Sign in again; if it happens again, the "
                "administrator compares the clocks of this machine and the provider, and runs `mkiso doctor`."
            ) from None
        return dict(token.claims)

    def _key_set(self, *, anew: bool = False) -> KeySet:
        with self._lock:
            known = self._keys
        if known is None or anew or time.monotonic() - self._known[0] > KEPT_SECONDS:
            try:
                known = KeySet.import_key_set(self._ask("GET", self._endpoint("jwks_uri")))  # type: ignore[arg-type]
            except (JoseError, ValueError, TypeError, LookupError):
                raise ProviderUnavailable("The keys of the sign-in provider can't be read.") from None
            with self._lock:
                self._keys = known
        return known

    def _userinfo(self, access_token: str, sub: str) -> dict[str, Any]:
        """More claims of the same person (5.3.2)."""
        told = self._ask("GET", self._endpoint("userinfo_endpoint"), {"authorization": f"Bearer {access_token}"})
        if told.get("sub") != sub:
            raise SignInFailed("The provider tells of two different persons. Sign in again.")
        return told

    def _person(self, claims: Mapping[str, Any], id_token: str) -> Person:
        sign_in = self._settings
        user = self._user(claims)
        names = (_at(claims, each) for each in (sign_in.name_claim, "name", "preferred_username", "email"))
        name = next((told for each in names if isinstance(each, str) and (told := one_line(each))), user)
        given = _at(claims, sign_in.role_claim)
        held = {each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)}
        roles = tuple(role for role, meant in sign_in.roles.items() if held & set(meant))
        hint = id_token if len(id_token) <= MAX_TOKEN else ""
        if not roles:
            raise NoRole(
                "You are signed in at the provider, and have no role here: ask the administrator for one "
                "(sign_in.roles).",
                hint,
            )
        return Person(user, name[:MAX_NAME], roles, hint)

    def _user(self, claims: Mapping[str, Any]) -> str:
        """By what mkiso knows a person. Raises SignInFailed where that may be somebody else's, or a key's."""
        claim = self._settings.user_claim
        user = one_line(str(_at(claims, claim) or ""))
        if len(user) > MAX_USER:  # cut off, two people could be one
            raise SignInFailed(f"The provider's name for you has more than {MAX_USER} characters (sign_in.user_claim).")
        if not user:
            raise SignInFailed(f"The provider doesn't tell who you are: it has no claim {claim} (sign_in.user_claim).")
        if user == SHARED_USER or user.startswith(KEY_USER):
            raise SignInFailed(
                "The provider calls you what mkiso calls a key: its administrator gives you another name."
            )
        return user

    def _ask(
        self, method: str, address: str, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The provider's answer, a JSON object of bounded length. Raises ProviderUnavailable, SignInFailed."""
        try:
            status, body = self._fetched(method, address, headers or {}, form)
            if status in (400, 401) and form:
                raise SignInFailed(_refusal(body))
            if status != 200:
                raise ProviderUnavailable(
                    f"The sign-in provider answers with status {status} at {urlsplit(address).path}."
                )
            told = json.loads(body)
        except (ValueError, RecursionError):  # also of a token that no header can hold
            raise ProviderUnavailable("The sign-in provider's answer is no JSON.") from None
        if not isinstance(told, dict):
            raise ProviderUnavailable("The sign-in provider's answer is no JSON object.")
        return told

    def _fetched(
        self, method: str, address: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        """An answer's status and body, of bounded length and in bounded time. Raises ProviderUnavailable."""
        ends, connections = time.monotonic() + ANSWER_SECONDS, Connections()
        hooks = {"request": [connections.follow]}
        headers = {"accept": "application/json", **headers}
        body = bytearray()
        try:
            with (
                httpx.Client(timeout=TIMEOUT_SECONDS, verify=self._trust(), event_hooks=hooks) as client,
                connections.ending_after(ANSWER_SECONDS),
                client.stream(method, address, headers=headers, data=form) as answer,
            ):
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise ProviderUnavailable("The sign-in provider's answer is too long.")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if time.monotonic() < ends:  # later it is our own limit that has ended it
                raise ProviderUnavailable(
                    f"The sign-in provider can't be reached ({why_unreachable(error)}). Try again in a minute; discs "
                    "that are being made go on."
                ) from None
        if time.monotonic() >= ends:  # the connection was ended then, which may be the end of a body
            raise ProviderUnavailable("The sign-in provider's answer takes too long.")
        return answer.status_code, bytes(body)

    def _trust(self) -> ssl.SSLContext:
        return trusting(self._settings.authority)


def is_safe(address: str) -> bool:
    """Whether an address is https, or of this machine alone: secrets go there, and people are led there."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not address.isascii() or not address.isprintable() or " " in address or parts.username is not None:
        return False
    return (parts.scheme == "https" and host != "") or (
        parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")
    )


def _refusal(body: bytes) -> str:
    """What a token endpoint says (RFC 6749 5.2), of which only the code is told."""
    try:
        code = str(json.loads(body).get("error", ""))
    except (ValueError, AttributeError, RecursionError):
        code = ""
    if code == "invalid_client":
        return "The provider doesn't know mkiso: the administrator checks sign_in.client_id and sign_in.client_secret."
    return "The provider doesn't confirm this sign-in: it has ended, or was used before. Sign in again."


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim; dots lead into objects (realm_access.roles), unless a claim has just that name."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
