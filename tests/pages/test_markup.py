"""Text never becomes markup."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.pages.markup import Html, element, joined, outside, theirs, visible
from tests.pages.conftest import Read


@given(st.text(), st.text())
def test_text_is_read_as_text_and_an_attribute_as_one_attribute(text: str, value: str) -> None:
    read = Read(element("p", text, title=value).source)
    assert read.tags == [("p", {"title": visible(value)})]
    assert read.text == visible(text)


@given(st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs", "Co"])))
def test_what_cannot_be_seen_is_named(text: str) -> None:
    seen = visible(text)
    assert all(unicodedata.category(each) in ("Lu", "Nd", "Sm") or each == "\n" for each in seen)


@given(st.text(min_size=30), st.integers(2, 20))
def test_a_strangers_text_is_cut_and_has_its_own_direction(text: str, most: int) -> None:
    read = Read(theirs(text, most).source)
    assert [tag for tag, _ in read.tags] == ["bdi"]
    assert len(read.text) == most
    assert read.text.endswith("…")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:x", "data:text/html,x", "//x", "vbscript:x", ""]
)
def test_only_urls_of_http_become_links(url: str) -> None:
    assert outside(url, "there") == Html("there")
    assert outside("https://x.example/", "there").source.startswith('<a href="https://x.example/"')


def test_what_is_absent_is_left_out() -> None:
    assert joined("a", None, ["b", None]) == Html("ab")
    assert element("input", required=True, name=None, class_="x", data_label="y") == Html(
        '<input required class="x" data-label="y">'
    )
