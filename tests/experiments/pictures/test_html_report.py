"""The page: whole in itself, and safe whatever the texts are."""

import base64
import re
from html.parser import HTMLParser

import pytest

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments import Table
from eq_aimet.experiments.pictures import (
    Picture,
    Section,
    build_html_report,
    library_versions,
    plot_training,
    write_html_report,
)
from eq_aimet.experiments.training import EpochRecord

PNG = plot_training({"a": [EpochRecord(1, 0.5, 0.5, 0.5, 0.5)]})
HOSTILE = (
    """"'><script>alert(1)</script><img src=https://example.org/x.png onerror=alert(2)>"""
    "&amp;{{ 7*7 }}{% if %}"
)
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and whether all elements are closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def whole_report(text="3 < 4"):
    table = Table((text, "b"), ((text, "1"), ("x", text)), caption=text, notes=(text,))
    picture = Picture(PNG, alt=text, caption=text)
    sections = [Section(text, text, (table,), (picture,)), Section("Second", "more")]
    return build_html_report(text, sections, subtitle=text, settings={text: text}, versions={text: text})


def assert_self_contained(page):
    """Nothing on the page is fetched from elsewhere, and nothing runs."""
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "srcset", "data", "poster", "background", "action"}:
                assert value.startswith("data:image/png;base64,"), (tag, value[:40])
            if name in {"href", "xlink:href"}:
                assert value.startswith("#"), (tag, value)


def test_the_page_needs_nothing_else():
    text = whole_report()
    page = Page(text)
    assert_self_contained(page)
    assert not re.search(r"https?:|//|@import|url\(", text.replace(base64.b64encode(PNG).decode(), ""))
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]


def test_the_check_of_the_page_can_fail():
    for addition in ('<img src="https://example.org/a.png">', "<script></script>", '<a href="a.html"></a>'):
        with pytest.raises(AssertionError):
            assert_self_contained(Page(f"{whole_report()}{addition}"))


def test_pictures_are_in_the_page_with_their_size_and_text():
    (image,) = Page(whole_report("seen")).all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PNG
    assert (image["width"], image["height"], image["alt"]) == ("1500", "630", "seen")


def test_hostile_texts_stay_texts():
    text = whole_report(HOSTILE)
    page = Page(text)
    assert_self_contained(page)
    assert len(page.all("img")) == 1
    assert page.all("img")[0]["alt"] == HOSTILE
    shown = "".join(page.texts)
    # Title, <h1>, subtitle, contents, heading, text, table 5, picture's caption, settings 2, versions 2
    assert shown.count(HOSTILE) == 16
    assert "49" not in shown


def test_undecodable_names_do_not_break_the_page(tmp_path):
    path = write_html_report(tmp_path / "report.html", "a\udcff", [Section("x")])
    assert "<h1>a?</h1>" in path.read_text("utf-8")


def test_links_lead_to_the_sections():
    page = Page(whole_report())
    targets = [link["href"].removeprefix("#") for link in page.all("a")]
    assert targets == ["section-1", "section-2", "settings", "versions"]
    assert [section["id"] for section in page.all("section")] == targets


def test_what_is_empty_is_left_out():
    page = Page(build_html_report("Title", [Section("Only")]))
    assert [section["id"] for section in page.all("section")] == ["section-1"]
    assert not page.all("table")
    assert not page.all("figure")


def test_the_page_suits_phones_dark_screens_paper_and_readers():
    text = whole_report()
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    for query in ("prefers-color-scheme: dark", "max-width", "@media print"):
        assert query in text
    assert {heading.get("scope") for heading in page.all("th")} == {"col", "row"}


def test_settings_read_well():
    settings = {"learning_rate": 5e-3, "turns": ("90°", "180°"), "download": False, "limit": None}
    shown = Page(build_html_report("Title", [Section("Only")], settings=settings)).texts
    for value in ("0.005", "90°, 180°", "False", "None"):
        assert value in shown


def test_writing_replaces_the_page_whole(tmp_path):
    path = write_html_report(tmp_path / "report.html", "First", [Section("x")])
    assert write_html_report(path, "Second", [Section("x")]) == path
    assert "<h1>Second</h1>" in path.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="error on writing"):
        write_html_report(tmp_path / "missing" / "report.html", "Third", [Section("x")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_html_report(" ", [Section("x")]), "`title`: received an empty one"),
        (lambda: build_html_report("x", []), "`sections`: received an empty one"),
        (lambda: Picture(b"GIF89a", "x"), "`png`: received bytes that does not hold a PNG file"),
        (lambda: Picture("text", "x"), "`png`: received str"),
    ],
)
def test_what_can_not_be_written_is_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_the_versions_are_the_installed_ones():
    import torch

    versions = library_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"Python", "eq_aimet", "aimet-torch", "onnxruntime"} <= set(versions)
