"""Who may ask: the keys of programs, and the provider at which people sign in."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from mkiso.config.section import Place, Section, SentSecret, differ_by_more_than_case, long_enough

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Key(Section):
    """The key of one program, and what it may do: make and take discs, print, see the site's list, cancel what it has
    asked for.
    """

    key: SentSecret = Field(description="the key itself, or key_file")
    rights: Annotated[
        tuple[Literal["disc", "search", "deidentify", "print", "list", "cancel"], ...], Field(min_length=1)
    ] = (
        "disc",
        "print",
        "cancel",
    )

    @field_validator("key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        return long_enough(key)


KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]


SHARED_USER, KEY_USER = "shared key", "key:"
"""In the audit: the user of the shared key, and what stands before the name of a named key."""


class Auth(Section):
    """Who may ask: X-API-Key on /api/*. `api_key` may do everything, each of `keys` what its rights say."""

    enabled: bool = False
    api_key: SentSecret = SecretStr("")
    keys: Annotated[Mapping[KeyName, Key], AfterValidator(differ_by_more_than_case)] = {}

    @field_validator("api_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        return long_enough(key) if key.get_secret_value() else key

    @model_validator(mode="after")
    def _key_where_enabled(self) -> Auth:
        if self.enabled and not self.api_key.get_secret_value() and not self.keys:
            raise ValueError(
                "auth.enabled is true and auth.api_key is empty: set MKISO__AUTH__API_KEY or auth.api_key_file"
            )
        if self.keys and not self.enabled:
            raise ValueError("auth.keys has keys and auth.enabled is false: set it to true, or anybody may do anything")
        return self

    @model_validator(mode="after")
    def _keys_differ(self) -> Auth:
        texts = {"auth.api_key": self.api_key.get_secret_value()}
        texts |= {f"auth.keys.{name}": each.key.get_secret_value() for name, each in self.keys.items()}
        for (name, key), (other, same) in combinations(texts.items(), 2):
            if key == same:
                raise ValueError(f"{name} and {other} are the same key: give each its own")
        return self


class SignIn(Section):
    """People sign in at an OpenID Connect provider; an empty issuer means that there is none."""

    issuer: str = ""
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scopes: tuple[str, ...] = ("openid", "profile")
    user_claim: str = "sub"
    name_claim: str = "name"
    role_claim: str = "roles"
    roles: Mapping[Literal["clerk", "operator", "administrator"], tuple[str, ...]] = {}
    idle_minutes: float = Field(60, gt=0, le=1440)
    hours: float = Field(12, gt=0, le=168)
    clock_skew_seconds: int = Field(60, ge=0, le=600)
    authority: Place | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> SignIn:
        if not self.issuer:
            return self
        if not is_private(self.issuer) or "?" in self.issuer or "#" in self.issuer:
            raise ValueError("sign_in.issuer is the provider's whole https address, as it names itself")
        missing = [name for name in ("client_id", "roles") if not getattr(self, name)]
        if missing:
            raise ValueError(f"sign_in.issuer is set: {' and '.join(f'sign_in.{name}' for name in missing)} are needed")
        if "openid" not in self.scopes:
            raise ValueError("sign_in.scopes needs openid")
        return self


def is_private(url: str) -> bool:
    """Whether nobody between reads what goes to this address: https, or this machine."""
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (parts.scheme == "http" and is_loopback(url))


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own, which no other one reaches."""
    return urlsplit(url).hostname in LOOPBACK
