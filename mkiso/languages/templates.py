"""Jinja's templates in the language of their context, which has it as `language`: `{{ _("…") }}`."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context

from mkiso.languages import Language


def environment(package: str, folder: str, **options: Any) -> Environment:
    """The templates in a folder of a package; those of HTML escape what they are given. `options` are Jinja's."""
    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=select_autoescape(("html", "html.j2")),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        **options,
    )
    made.install_gettext_callables(_gettext, _ngettext, newstyle=True)  # type: ignore[attr-defined]
    return made


@pass_context
def _gettext(context: Context, message: str) -> str:
    spoken: Language = context["language"]
    return spoken.gettext(message)


@pass_context
def _ngettext(context: Context, singular: str, plural: str, number: int) -> str:
    spoken: Language = context["language"]
    return spoken.ngettext(singular, plural, number)
