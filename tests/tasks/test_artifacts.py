"""What an operator sees in Prefect's UI is what the job has told."""

from __future__ import annotations

from html import escape, unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mkiso.study.identity import one_line
from tasks.artifacts import as_markdown


@given(st.text(st.sampled_from("A1 \n\t\\`*_{}[]()<>#+-.!|~&;:=\"'/"), max_size=24))
@example("![x](//e.org/p)")
@example("<img src=//e.org>")
@example("A1 | A2\n--|--")
@example("1234. x")
def test_a_cell_shows_the_text_that_it_is(text: str) -> None:
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(str(as_markdown(text))).strip()
    assert shown.removeprefix("<p>").removesuffix("</p>") == escape(one_line(text)).replace("&#x27;", "'")
    assert unescape(shown).removeprefix("<p>").removesuffix("</p>") == one_line(text)


@pytest.mark.parametrize("value", ["A100234", "1.2.840.113", "2026-01-02", 7, None, "MR, CT"])
def test_what_means_nothing_in_markdown_stays_as_it_is(value: object) -> None:
    assert as_markdown(value) == value
