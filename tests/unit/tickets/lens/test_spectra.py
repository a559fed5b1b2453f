# SPDX-License-Identifier: Apache-2.0
import re
import xml.etree.ElementTree as ET

import pytest

from edgeprune.tickets.lens.ntk import Lens, Row
from edgeprune.tickets.lens.spectra import spectra_svg

SVG = "{http://www.w3.org/2000/svg}"


def row(name: str, *spectrum: float, condition: float | None = None) -> Row:
    return Row(
        name,
        0.25,
        Lens(
            spectrum=spectrum,
            trace=sum(spectrum),
            condition=condition,
            effective_rank=2.0,
            alignment=None,
            distance=None,
            dissimilarity=None,
            parameters=9,
            samples=len(spectrum),
            outputs="sum",
            how="by hand",
            spread=None,
        ),
    )


def lines(picture: str) -> list[list[tuple[float, float]]]:
    """The points of the lines with data in them, in order."""
    found = []
    for path in ET.fromstring(picture).iter(f"{SVG}path"):
        points = re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])
        if path.get("stroke-width") and "h30" not in path.attrib["d"]:
            found.append([(float(x), float(y)) for x, y in points])
    return found


def texts(picture: str) -> list[str]:
    return [t.text or "" for t in ET.fromstring(picture).iter(f"{SVG}text")]


def test_equal_powers_are_equal_distances() -> None:
    (line,) = lines(spectra_svg([row("dense", 1000.0, 100.0, 1.0)]))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y2 - y1 == pytest.approx(2 * (y1 - y0), abs=0.3)
    assert y1 > y0  # smaller is lower


def test_all_rows_share_the_axes_and_have_colours_and_dashes_of_their_own() -> None:
    picture = spectra_svg([row("dense", 10.0, 1.0), row("snip", 10.0, 0.1, 0.01)], "net")
    first, second = lines(picture)
    assert first[0] == second[0]
    assert len(second) == 3
    strokes = [
        (p.get("stroke"), p.get("stroke-dasharray"))
        for p in ET.fromstring(picture).iter(f"{SVG}path")
        if p.get("stroke-width")
    ]
    assert len(set(strokes)) == 2
    assert len(strokes) == 4  # each line, and its key
    assert "Spectrum of the tangent kernel: net" in texts(picture)
    assert {"1e-2", "1e-1", "1e0", "1e1"} <= set(texts(picture))


def test_what_is_zero_up_to_rounding_is_left_out_and_told() -> None:
    picture = spectra_svg([row("dense", 10.0, 1.0, 1e-13, -1e-14), row("x", 5.0, 1.0, condition=5)])
    assert [len(line) for line in lines(picture)] == [2, 2]
    assert "dense, density 0.25, 2 of 4 eigenvalues" in texts(picture)
    assert "x, density 0.25, 2 eigenvalues, condition 5" in texts(picture)


def test_a_single_eigenvalue_or_none_still_gives_a_picture() -> None:
    picture = spectra_svg([row("one", 3.0), row("none", 0.0)])
    assert len(list(ET.fromstring(picture).iter(f"{SVG}circle"))) == 1
    assert "none, density 0.25, 0 of 1 eigenvalues" in texts(picture)
    assert texts(spectra_svg([row("none", 0.0, 0.0)]))


def test_names_are_text_not_markup_and_long_ones_keep_their_end() -> None:
    picture = spectra_svg([row("<script>" + "a" * 60 + "&end", 2.0, 1.0)], 'a"<b>')
    assert "<script>" not in picture
    assert any(t.startswith("…") and "&end, density" in t for t in texts(picture))
    assert spectra_svg([row("a", 2.0, 1.0)]) == spectra_svg([row("a", 2.0, 1.0)])
