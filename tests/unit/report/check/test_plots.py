# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import sys
import warnings
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from edgeprune.errors import InputError, OutputError
from edgeprune.figure import counted
from edgeprune.report.check import Point, canvas, plot
from edgeprune.report.check.plots import plan
from tests.unit.report.check import reports

ROOT = Path(__file__).parents[4]


def one(quantity: str, value: float, unit: str, artifact: str = "a.onnx") -> Point:
    return Point("abc", "2026-01-01", {artifact: {quantity: counted(value, unit, "a test")}})


def test_a_panel_for_each_quantity_and_a_line_for_each_artifact() -> None:
    drawn = plan(reports.history(9))
    assert [panel.title for panel in drawn.panels] == ["size (MB)", "latency (ms)", "accuracy (%)"]
    assert [len(panel.lines) for panel in drawn.panels] == [3, 2, 2]
    assert drawn.commits == 9
    size = drawn.panels[0].lines[0]
    assert size.values[0] == size.lows[0] == size.highs[0] == pytest.approx(2.31)
    latency = drawn.panels[1].lines[0]
    assert latency.lows[0] < latency.values[0] < latency.highs[0]


def test_what_was_not_measured_is_a_gap() -> None:
    latency = plan(reports.history(9)).panels[1].lines[1]
    assert latency.places == (0, 1, 3, 4, 5, 7, 8)
    new = plan(reports.history(9)).panels[0].lines[2]
    assert new.places == (3, 4, 5, 6, 7, 8)


def test_an_artifact_has_one_style_in_all_panels() -> None:
    drawn = plan(reports.history(9))
    styles = {(line.name, line.style) for panel in drawn.panels for line in panel.lines}
    assert sorted(styles, key=lambda pair: pair[1]) == [(n, i) for i, n in enumerate(drawn.names)]


def test_quantities_in_other_units_have_their_own_panels() -> None:
    drawn = plan([one("accuracy", 91.0, "%"), one("accuracy", 0.4, "")])
    assert [panel.title for panel in drawn.panels] == ["accuracy (%)", "accuracy"]


@pytest.mark.parametrize(
    ("value", "unit", "title", "scaled"),
    [
        (950.0, "B", "q (B)", 950.0),
        (2_000.0, "B", "q (kB)", 2.0),
        (3e9, "B", "q (GB)", 3.0),
        (4e-5, "s", "q (us)", 40.0),
        (1e-9, "s", "q (us)", 0.001),
        (0.0, "B", "q (B)", 0.0),
        (2e-3, "J", "q (mJ)", 2.0),
        (-1.5, "points", "q (points)", -1.5),
    ],
)
def test_scales(value: float, unit: str, title: str, scaled: float) -> None:
    (panel,) = plan([one("q", value, unit)]).panels
    assert panel.title == title
    assert panel.lines[0].values == pytest.approx((scaled,))


@pytest.mark.parametrize("commits", [1, 2, 9, 10, 60, 1000])
def test_labels_are_few_and_the_newest_is_named(commits: int) -> None:
    labels = plan(reports.history(commits)).labels
    assert 1 <= len(labels) <= 9
    assert labels[-1][0] == commits - 1
    assert all(re.fullmatch(r"[0-9a-f]{7}\n\d{4}-\d\d-\d\d", text) for _, text in labels)


@pytest.mark.parametrize("commits", [1, 9, 60])
def test_pictures_are_whole_and_equal_for_equal_points(commits: int, tmp_path: Path) -> None:
    for suffix in (".svg", ".png"):
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            plot(reports.history(commits), path)
        first, second = (path.read_bytes() for path in paths)
        assert first == second
        if suffix == ".svg":
            assert ElementTree.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            image = Image.open(BytesIO(first))
            assert image.size[0] == 1440
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 20


def test_names_that_mean_harm_are_drawn_without_a_warning(tmp_path: Path) -> None:
    points = [
        Point(name, name, {name: {name: counted(1.0, "B", "a test")}}) for name in reports.HOSTILE
    ]
    points += [one("q", 1.0, "x", name) for name in ("_hidden", "$x^2$", "$", "\\frac", "\u4e2d")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot(points, tmp_path / "a.svg")
        plot(points, tmp_path / "a.png")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert not [node for node in root.iter() if str(node.tag).endswith(("script", "foreignObject"))]


def test_no_text_covers_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Figure] = []

    class Kept(Figure):
        def savefig(self, *args: Any, **kwargs: Any) -> None:
            found.append(self)
            super().savefig(*args, **kwargs)

    monkeypatch.setattr(canvas, "Figure", Kept)
    plot(reports.history(60), tmp_path / "a.png")
    (figure,) = found
    FigureCanvasAgg(figure).draw()
    last = figure.axes[-1]
    boxes = [label.get_window_extent() for label in last.get_xticklabels()]
    assert len(boxes) == 9
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 < min(box.y0 for box in boxes)
    assert legend.get_window_extent().x0 >= 0


def test_the_settings_of_matplotlib_stay_as_they_were(tmp_path: Path) -> None:
    before = dict(rcParams)
    plot(reports.history(2), tmp_path / "a.svg")
    assert dict(rcParams) == before


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.svg.txt"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a plot is an \.svg or a \.png"):
        plot(reports.history(2), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("points", [[], [Point("a", "b", {})], [Point("a", "b", {"c": {}})]])
def test_nothing_to_plot(points: list[Point], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no figure to plot"):
        plot(points, tmp_path / "a.svg")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't be written: No such file"):
        plot(reports.history(2), tmp_path / "none" / "a.svg")
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(OutputError, match="can't be written"):
        plot(reports.history(2), tmp_path / "a.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


def test_without_matplotlib_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from edgeprune.errors import MissingExtra\n"
        "from edgeprune.report.check import plot\n"
        "from tests.unit.report.check.reports import history\n"
        "try:\n    plot(history(2), Path('none.svg'))\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "pip install 'edgeprune[plots]'" in result.stdout, result.stderr
