"""ID tokens and answers that a provider must not give: each signs nobody in, in words."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from mkiso.config.access import SignIn
from mkiso.errors import NotAllowed, ProviderUnavailable, SignInFailed
from mkiso_service.openid import MAX_BYTES, Pending, Provider, is_safe
from peers.certificates import showing, write_certificates
from peers.dripping import DRIPS, dripping

KEY, OTHER = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("a", "b"))
PENDING = Pending("state", "nonce", "verifier")
SKEW = 60
Change = Callable[[dict[str, Any]], object]


class Liar:
    """A provider that answers what a test wants."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.slow = False
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = liar.answers.get(self.path.partition("?")[0])
                body = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(200 if told is not None else 500)
                self.send_header("content-length", str(72_000 if liar.slow else len(body)))
                self.end_headers()
                for piece in (b" " for _ in range(72_000)) if liar.slow else (body,):
                    time.sleep(0.05 if liar.slow else 0)
                    try:
                        self.wfile.write(piece)
                    except OSError:
                        return

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"

    def anew(self) -> None:
        addresses = (
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
        )
        described = {name: f"{self.issuer}/{name}" for name in addresses}
        self.slow = False
        self.answers = {
            "/.well-known/openid-configuration": {"issuer": self.issuer, **described},
            "/jwks_uri": {"keys": [KEY.as_dict(private=False)]},
        }
        self.tokens()

    def tokens(self, change: Change = lambda claims: None, key: Any = KEY, **header: str) -> None:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "ada", "aud": "mkiso", "exp": now + 300, "iat": now, "nonce": "nonce"}
        claims["roles"] = ["admins"]
        change(claims)
        told = {"alg": "RS256", "kid": "a", **header}
        token = jwt.encode(told, claims, key, algorithms=[told["alg"]])
        self.answers["/token_endpoint"] = {"id_token": token, "access_token": "x", "token_type": "Bearer"}

    def provider(self) -> Provider:
        told = {"issuer": self.issuer, "client_id": "mkiso", "roles": {"administrator": ["admins"]}}
        return Provider(SignIn.model_validate({**told, "clock_skew_seconds": SKEW}), "https://discs.example.org")

    def finish(self, issuer: str = "") -> object:
        return self.provider().finish(PENDING, "state", "code", issuer)


@pytest.fixture(scope="module")
def listening() -> Iterator[Liar]:
    liar = Liar()
    thread = threading.Thread(target=liar.server.serve_forever)
    thread.start()
    yield liar
    liar.server.shutdown()
    thread.join()


@pytest.fixture
def liar(listening: Liar) -> Liar:
    listening.anew()
    return listening


def test_what_is_right_signs_somebody_in(liar: Liar) -> None:
    person = liar.provider().finish(PENDING, "state", "code", liar.issuer)
    assert (person.user, person.name, person.roles) == ("ada", "ada", ("administrator",))


@pytest.mark.parametrize("seconds", [-SKEW + 20, SKEW - 20])
def test_clocks_may_differ_a_little(liar: Liar, seconds: int) -> None:
    now = int(time.time())
    liar.tokens(lambda claims: claims.update(iat=now + seconds, exp=now + seconds))
    assert liar.finish()


CHANGES: dict[str, Change] = {
    "another nonce": lambda claims: claims.update(nonce="other"),
    "no nonce": lambda claims: claims.pop("nonce"),
    "for another": lambda claims: claims.update(aud="other"),
    "for several, by nobody": lambda claims: claims.update(aud=["mkiso", "other"]),
    "by another": lambda claims: claims.update(azp="other"),
    "another issuer": lambda claims: claims.update(iss="https://evil.example"),
    "no issuer": lambda claims: claims.pop("iss"),
    "over": lambda claims: claims.update(exp=int(time.time()) - SKEW - 60),
    "endless": lambda claims: claims.pop("exp"),
    "to come": lambda claims: claims.update(nbf=int(time.time()) + SKEW + 60),
    "of nobody": lambda claims: claims.pop("sub"),
    "another access token": lambda claims: claims.update(at_hash="x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_token_that_is_not_right(liar: Liar, change: Change) -> None:
    liar.tokens(change)
    with pytest.raises(SignInFailed):
        liar.finish()


def test_no_signature_but_the_providers_own(liar: Liar) -> None:
    liar.tokens(key=OTHER)
    with pytest.raises(SignInFailed):
        liar.finish()
    secret = OctKey.import_key(json.dumps(KEY.as_dict(private=False)))  # the public key as a shared secret
    liar.tokens(key=secret, alg="HS256")
    with pytest.raises(SignInFailed):
        liar.finish()
    liar.tokens()
    answer: Any = liar.answers["/token_endpoint"]
    head, body, signature = answer["id_token"].split(".")
    for forged in (f"{head}.{body}.", f"eyJhbGciOiJub25lIn0.{body}.", f"{head}.{body}x.{signature}", "", "x", "a.b.c"):
        liar.answers["/token_endpoint"] = {**answer, "id_token": forged}
        with pytest.raises(SignInFailed):
            liar.finish()


def test_a_new_key_is_asked_for(liar: Liar) -> None:
    provider = liar.provider()
    provider.check()
    liar.answers["/jwks_uri"] = {"keys": [OTHER.as_dict(private=False)]}
    liar.tokens(key=OTHER, kid="b")
    assert provider.finish(PENDING, "state", "code", "").user == "ada"


@pytest.mark.parametrize(
    ("state", "code", "issuer"), [("", "c", ""), ("x", "c", ""), ("state", "", ""), ("state", "c", "x")]
)
def test_an_answer_to_nothing_that_was_asked(liar: Liar, state: str, code: str, issuer: str) -> None:
    with pytest.raises(SignInFailed):
        liar.provider().finish(PENDING, state, code, issuer)


def test_who_promises_to_name_itself_has_to(liar: Liar) -> None:
    told: Any = liar.answers["/.well-known/openid-configuration"]
    told["authorization_response_iss_parameter_supported"] = True
    with pytest.raises(SignInFailed):
        liar.finish()
    assert liar.finish(liar.issuer)


def test_more_is_told_of_the_same_person_alone(liar: Liar) -> None:
    liar.tokens(lambda claims: claims.pop("roles"))
    liar.answers["/userinfo_endpoint"] = {"sub": "ada", "roles": "admins", "name": " Ada\nExample "}
    person: Any = liar.finish()
    assert (person.roles, person.name) == (("administrator",), "Ada Example")
    liar.answers["/userinfo_endpoint"] = {"sub": "eve", "roles": "admins"}
    with pytest.raises(SignInFailed):
        liar.finish()


@pytest.mark.parametrize("roles", [[], "", "Admins", "admin", {"admins": 1}, 1, None, [["admins"]]])
def test_nothing_else_is_a_role(liar: Liar, roles: object) -> None:
    liar.tokens(lambda claims: claims.update(roles=roles))
    liar.answers["/userinfo_endpoint"] = {"sub": "ada"}
    with pytest.raises(NotAllowed):
        liar.finish()


@pytest.mark.parametrize("user", ["key:robot", "shared key", " key:\nrobot", "\0", "x" * 256])
def test_nobody_is_called_what_a_key_is_or_nothing_or_too_much(liar: Liar, user: str) -> None:
    """Who has a key's name could cancel its jobs, and the audit would name the key."""
    liar.tokens(lambda claims: claims.update(sub=user))
    with pytest.raises(SignInFailed):
        liar.finish()


def test_a_name_is_one_line_of_what_can_be_seen(liar: Liar) -> None:
    liar.tokens(lambda claims: claims.update(sub="ada\x1b[2J", name="Ada\0\u202e Example"))
    person: Any = liar.finish()
    assert (person.user, person.name) == ("ada [2J", "Ada Example")


def test_an_answer_byte_by_byte_ends_in_time(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take an hour; none of its reads takes long."""
    monkeypatch.setattr("mkiso_service.openid.ANSWER_SECONDS", 0.5)
    liar.slow = True
    with pytest.raises(ProviderUnavailable, match="takes too long"):
        liar.finish()


@pytest.mark.parametrize("what", DRIPS)
def test_an_answer_that_never_begins_or_goes_on_ends_in_time(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso_service.openid.ANSWER_SECONDS", 0.5)
    with dripping(what) as port, pytest.raises(ProviderUnavailable, match="takes too long"):
        sign_in = SignIn.model_validate(
            {"issuer": f"http://127.0.0.1:{port}", "client_id": "mkiso", "roles": {"clerk": ["c"]}}
        )
        Provider(sign_in, "https://discs.example.org").begin(PENDING)


def test_an_answer_through_a_proxy_that_never_begins_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso_service.openid.ANSWER_SECONDS", 0.5)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    tunnel = showing(write_certificates(tmp_path), "own")
    told = {"issuer": "https://127.0.0.1", "client_id": "mkiso", "roles": {"clerk": ["c"]}}
    sign_in = SignIn.model_validate(told | {"authority": tmp_path / "ca.pem"})
    with dripping("a header a byte at a time", tunnel) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ProviderUnavailable, match="takes too long"):
            Provider(sign_in, "https://discs.example.org").begin(PENDING)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"", b"[]", b"no json", b"null", b" " * (MAX_BYTES + 1), b"\xff"])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks_uri", "/token_endpoint"])
def test_what_is_no_answer(liar: Liar, path: str, body: bytes) -> None:
    liar.answers[path] = body
    with pytest.raises((ProviderUnavailable, SignInFailed)):
        liar.finish()


@pytest.mark.parametrize("address", ["http://evil.example/token", "javascript:alert(1)", "", "https://a@evil.example/"])
def test_secrets_go_to_no_other_kind_of_address(liar: Liar, address: str) -> None:
    assert not is_safe(address)
    told: Any = liar.answers["/.well-known/openid-configuration"]
    told |= {"token_endpoint": address, "authorization_endpoint": address, "end_session_endpoint": address}
    with pytest.raises(ProviderUnavailable):
        liar.finish()
    with pytest.raises(ProviderUnavailable):
        liar.provider().begin(PENDING)
    assert liar.provider().end("x") == ""


def test_another_issuer_describes_itself(liar: Liar) -> None:
    liar.answers["/.well-known/openid-configuration"] = {"issuer": "https://evil.example"}
    with pytest.raises(ProviderUnavailable, match="calls itself"):
        liar.finish()
