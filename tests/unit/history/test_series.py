# SPDX-License-Identifier: Apache-2.0
import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.gate.lock import Accepted, Lock
from edgeprune.history import Version, page, series
from tests.unit.history.locks import accepted, lock
from tests.unit.report.check.reports import HOSTILE


def version(content: Lock, place: int = 0, subject: str = "work") -> Version:
    return Version(f"{place:040x}", f"2026-01-{1 + place:02}T00:00:00Z", subject, "l.json", content)


def versions(*artifacts: Accepted) -> list[Version]:
    return [version(lock(**{"m.onnx": each}), place) for place, each in enumerate(artifacts)]


def test_points_have_what_was_accepted_and_nothing_else() -> None:
    found = series(
        versions(accepted(10), accepted(20, latency=0.01, ratio=2.5, score=90.0), accepted(30))
    )
    name = "classifier for rpi4: m.onnx"
    assert [set(point.figures[name]) for point in found.points] == [
        {"size"},
        {"size", "latency", "latency to reference", "accuracy"},
        {"size"},
    ]
    assert [point.figures[name]["size"].value for point in found.points] == [10, 20, 30]
    assert found.notes == ("latency and memory were measured on: a board",)
    assert series(versions(accepted(10))).notes == ()


def test_agreement_is_not_called_accuracy() -> None:
    metric = "agreement with the dense model"
    found = series(versions(accepted(10, score=90.0, metric=metric)))
    assert set(found.rows[0].figures) == {"size", "agreement"}


def test_latencies_of_two_machines_are_not_joined() -> None:
    old = accepted(10, latency=0.01, ratio=2.0, machine="laptop")
    new = accepted(10, latency=0.09, ratio=2.1, machine="board")
    found = series(versions(old, old, new, new))
    figures = [point.figures["classifier for rpi4: m.onnx"] for point in found.points]
    assert ["latency" in each for each in figures] == [False, False, True, True]
    assert all("latency to reference" in each for each in figures)
    assert all("latency" in row.figures for row in found.rows)
    assert "2 commits was measured on another machine" in found.notes[1]


def test_one_model_or_target_alone() -> None:
    both = lock(10).model_copy(
        update={
            "models": {
                "a": {"rpi4": {"m.onnx": accepted(1)}, "rpi5": {"m.onnx": accepted(2)}},
                "b": {"rpi4": {"m.onnx": accepted(3)}},
            }
        }
    )
    found = [version(both), version(lock(10), 1)]
    names = [row.name for row in series(found, model="a").rows]
    assert names == ["a for rpi4: m.onnx", "a for rpi5: m.onnx"]
    assert [row.name for row in series(found, model="b", target="rpi4").rows] == [
        "b for rpi4: m.onnx"
    ]
    assert len(series(found, model="b").points) == 2  # a commit without it leaves a gap
    with pytest.raises(InputError, match="--model clasifier: no commit has it; did you mean"):
        series(found, model="clasifier")
    with pytest.raises(InputError, match=r"--target rpi6.*known: rpi4, rpi5"):
        series(found, target="rpi6")


class Seen(HTMLParser):
    """All tags, their attributes, and the texts of the table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def seen(text: str) -> Seen:
    return Seen(text)


def test_the_page_has_the_plot_and_the_table_and_fetches_nothing() -> None:
    found = series(versions(accepted(1_000, score=90.0), accepted(2_000)))
    svg = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    text = page(found, svg, title="history", notes=["a note"])
    parsed = seen(text)
    images = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 1
    assert base64.b64decode(str(images[0]).partition(",")[2]).decode() == svg
    assert "1 kB" in parsed.cells
    assert "90.00 % (89.00 to 91.00)" in parsed.cells
    assert "a note" in text
    assert not re.search(r"https?://|<script|<link|url\(|@import", text)
    assert "default-src 'none'" in text
    assert page(found, None, title="history").count("<img") == 0


def shape(name: str, svg: str | None = None) -> list[str]:
    """The tags of a page where ``name`` stands wherever a text may."""
    content = lock(reason=name, **{name: accepted(10, score=1.0, machine=name)})
    content = content.model_copy(update={"models": {name: content.models["classifier"]}})
    shown = series([version(content, subject=name)])
    parsed = seen(page(shown, svg, title=name, notes=[name]))
    for _, attributes in parsed.tags:
        assert set(attributes) <= {
            "lang", "charset", "http-equiv", "content", "name", "class", "title", "alt", "src",
        }  # fmt: skip
    return [tag for tag, _ in parsed.tags]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_part_of_the_page(name: str) -> None:
    assert shape(name) == shape("plain")


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_no_text_becomes_part_of_the_page(name: str) -> None:
    assert shape(name) == shape("plain")


def test_a_page_without_versions(tmp_path: Path) -> None:
    assert "No version could be read" in page(series([]), None, title="x")
