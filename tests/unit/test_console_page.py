"""The page's files: everything is in the package, nothing comes from elsewhere, data never becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

PAGE = {file.name: file.read_text("utf-8") for file in (files("tollgate.local.console") / "page").iterdir()}
SCRIPTS = sorted(name for name in PAGE if name.endswith(".js"))
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    r"|setHTML|\beval\b|new Function|javascript:|set(?:Timeout|Interval)\(\s*[\"'`]"
)
"""Ways in which a text can become elements or code."""


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def html() -> _Elements:
    parser = _Elements()
    parser.feed(PAGE["index.html"])
    return parser


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_of_a_text(name: str) -> None:
    assert MARKUP.findall(PAGE[name]) == []


def test_the_check_for_markup_knows_what_it_looks_for() -> None:
    for bad in ("node.innerHTML = id", "x.insertAdjacentHTML('a', b)", "eval(x)", "setTimeout('f()', 1)"):
        assert MARKUP.search(bad)


def test_elements_are_made_in_one_place_and_handlers_are_never_attributes() -> None:
    for name in SCRIPTS:
        if name != "dom.js":
            assert "createElement" not in PAGE[name], name
        assert not re.search(r"setAttribute\(\s*[\"']on|\bon[a-z]+:\s", PAGE[name].replace("on: [", "")), name


def test_the_page_has_no_inline_script_or_style_which_its_policy_would_refuse(html: _Elements) -> None:
    assert html.inline == []
    for tag, attributes in html.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag


def test_everything_the_page_loads_is_in_the_package(html: _Elements) -> None:
    loaded = [a.get("src") or a.get("href") for tag, a in html.found if tag in ("script", "link", "img")]
    loaded += [name for script in SCRIPTS for name in re.findall(r'from "\./([^"]+)"', PAGE[script])]
    assert loaded
    assert set(loaded) <= set(PAGE)
    for name, content in PAGE.items():
        outside = re.findall(r"https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1)[^\s\"'`]+|url\(|@import", content)
        assert outside == [], name


def test_each_id_that_a_script_asks_for_is_on_the_page(html: _Elements) -> None:
    ids = {attributes["id"] for _, attributes in html.found if "id" in attributes}
    asked = {name for script in SCRIPTS for name in re.findall(r'(?:byId|text)\("([\w-]+)"', PAGE[script])}
    assert asked <= ids
    assert len(asked) > 20


def test_every_section_and_picture_says_what_it_is(html: _Elements) -> None:
    ids = {attributes.get("id") for _, attributes in html.found}
    for tag, attributes in html.found:
        if tag in ("section", "dialog"):
            assert attributes.get("aria-labelledby") in ids
        if tag == "nav":
            assert attributes.get("aria-label")
        if tag == "svg":
            assert attributes.get("role") == "img"
    assert {"header", "main", "footer", "nav"} <= {tag for tag, _ in html.found}
