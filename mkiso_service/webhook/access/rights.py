"""Who may what: the rights of each role, and the right that each address asks for. Pure: the middleware asks it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

Right = Literal[
    "disc",  # see whose studies these are, have a disc made, take it
    "search",  # look for studies of any patient in the PACS
    "deidentify",  # have a de-identified copy made
    "print",  # have a publisher make a disc
    "list",  # see the discs of everybody at this site
    "cancel",  # end what one has asked for oneself
    "cancel_any",  # end what anybody has asked for
    "report",  # see who made what
    "keys",  # see the named keys and when each was used last
]
Role = Literal["clerk", "operator", "administrator", "machine"]
ALL: frozenset[Right] = frozenset(get_args(Right))
_CLERK: frozenset[Right] = frozenset(("disc", "search", "print", "list", "cancel"))
ROLES: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {
        "clerk": _CLERK,
        "operator": _CLERK | {"deidentify", "cancel_any", "report"},
        "administrator": ALL,
        "machine": frozenset(("disc", "print", "cancel")),
    }
)
"""A machine's are those that its key's settings give it; these where they say nothing (mkiso.config.access.Key)."""
ROUTES: Mapping[str, Right | None] = MappingProxyType(
    {
        "/api/health": None,
        "/api/openapi.json": None,
        "/api/keys": "keys",
        "/api/studies": "search",
        "/api/inboxes": "list",
        "/api/iso/preview": "disc",
        "/api/iso/download": "disc",
        "/api/iso/download-multiple": "disc",
        "/api/iso/print": "print",
        "/api/iso/jobs": "list",
        "/api/iso/made": "report",
        "/api/iso/jobs/{job_id}": "disc",
        "/api/iso/jobs/{job_id}/cancel": "cancel",
        "/api/iso/jobs/{job_id}/disc": "disc",
        "/api/iso/jobs/{job_id}/letter.pdf": "disc",
        "/api/iso/jobs/{job_id}/password": "disc",
    }
)
"""The right that each address below /api asks for; None: it is public."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `user` names a person or a program in the audit trail, `name` is what people read. `session` is a
    signed-in person's, under which it ends.
    """

    user: str = ""
    name: str = ""
    rights: frozenset[Right] = frozenset()
    session: str = ""


ANYBODY = Caller(rights=ALL)
"""Where nobody has to say who they are."""


def rights_of(roles: Iterable[str]) -> frozenset[Right]:
    """The rights of whoever has all of these roles; a name that is no person's role has none."""
    held = frozenset(roles) - {"machine"}
    return frozenset(right for role, rights in ROLES.items() if role in held for right in rights)


def is_guarded(path: str) -> bool:
    """Whether nobody gets an answer at this path without saying who they are. What isn't in the table is guarded."""
    return (path == "/api" or path.startswith("/api/")) and right_of(path) is not None


def right_of(path: str) -> Right | Literal["unknown"] | None:
    """The right that a path asks for: None where it is public, "unknown" where there is nothing."""
    parts = path.split("/")
    for template, right in ROUTES.items():
        named = template.split("/")
        if len(named) == len(parts) and all(map(_fits, named, parts)):
            return right
    return "unknown"


def may(rights: Iterable[Right], path: str) -> bool:
    """Whether somebody with these rights gets to a guarded path; at an unknown one everybody is told that there is
    nothing.
    """
    right = right_of(path)
    return right in (None, "unknown") or right in frozenset(rights)


def may_cancel(caller: Caller, users: Collection[str]) -> bool:
    """Whether somebody may end a job that these have asked for."""
    alone = "cancel" in caller.rights and bool(users) and all(user == caller.user != "" for user in users)
    return alone or "cancel_any" in caller.rights


def require_rows(routes: Iterable[BaseRoute]) -> None:
    """Raise ValueError for a route below /api that the table doesn't have: it would be open to every role."""
    for route in routes:
        if not isinstance(route, Route) or (route.path.startswith("/api") and route.path not in ROUTES):
            raise ValueError(f"{getattr(route, 'path', route)} isn't in mkiso_service.webhook.access.rights.ROUTES")


def caller_of(request: Request) -> Caller:
    """Who sent a request that has passed the middleware; a stranger has no rights."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller or Caller()


def _fits(named: str, part: str) -> bool:
    return named == part or (named.startswith("{") and part != "")
