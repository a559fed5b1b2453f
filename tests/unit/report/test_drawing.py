# SPDX-License-Identifier: Apache-2.0
"""The picture of a graph: well-formed, whole, readable, the same each time."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from edgeprune.report.drawing import Box, Drawing, Entry, colour, svg

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('x')</script> & \"quotes\" \x1b[31m ]]> \ufffe"


def luminance(value: str) -> float:
    parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def residual(blocks: int) -> Drawing:
    """Blocks of two layers and an add, each with its own group inside."""
    boxes = [Box("x", "", (), kind="end"), Box("stem", "conv2d", (0,))]
    edges = [(0, 1)]
    last = 1
    for block in range(blocks):
        first = len(boxes)
        boxes += [
            Box(f"block.{block}.conv1", "conv2d 8x8", (block + 1,), (0,)),
            Box(f"block.{block}.conv2", "conv2d 8x8", (0,), (block + 1,)),
            Box("add", "", (0,), kind="join"),
        ]
        edges += [(last, first), (first, first + 1), (first + 1, first + 2), (last, first + 2)]
        last = first + 2
    boxes.append(Box("output", "", (), kind="end"))
    edges.append((last, len(boxes) - 1))
    groups = [Entry(f"group {i}", 8, 1000 * i) for i in range(blocks + 1)]
    return Drawing("residual", tuple(boxes), tuple(edges), tuple(groups))


def texts(picture: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def boxes(picture: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each box that has a border."""
    found = []
    for rect in ElementTree.fromstring(picture).iter(f"{SVG}rect"):
        if "stroke" in rect.attrib:
            x, y, w, h = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + w, y + h))
    return found


@pytest.mark.parametrize("blocks", [0, 1, 9, 60])
def test_no_two_boxes_overlap_and_all_are_in_the_picture(blocks: int) -> None:
    picture = svg(residual(blocks))
    _, _, width, height = map(float, ElementTree.fromstring(picture).attrib["viewBox"].split())
    places = sorted(boxes(picture))
    assert len(places) == 3 * blocks + 3
    for i, (left, top, right, bottom) in enumerate(places):
        assert 0 < left < right < width
        assert 0 < top < bottom < height
        for other in places[i + 1 :]:
            apart = other[0] >= right or other[1] >= bottom or other[3] <= top
            assert apart, (places[i], other)


def test_a_net_of_three_hundred_blocks_is_drawn_whole() -> None:
    picture = svg(residual(300))
    shown = set(texts(picture))
    assert {f"block.{i}.conv{k}" for i in range(300) for k in (1, 2)} <= shown
    assert {str(i) for i in range(1, 302)} <= shown
    assert svg(residual(300)) == picture


def test_each_line_ends_at_a_box() -> None:
    drawing = residual(5)
    root = ElementTree.fromstring(svg(drawing))
    heads = [path for path in root.iter(f"{SVG}path") if path.attrib["stroke"] == "none"]
    assert len(heads) == len(drawing.edges)


def test_names_with_markup_stay_text() -> None:
    box = Box(NASTY, NASTY, (0,), (), (NASTY, "second line"))
    root = ElementTree.fromstring(svg(Drawing(NASTY, (box,), (), (Entry(NASTY, 1, 1),))))
    assert not list(root.iter(f"{SVG}script"))
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert kinds <= {"svg", "title", "rect", "g", "text", "path"}
    assert (root.findtext(f"{SVG}title") or "").startswith("<script>alert('x')</script> & \"quotes")


def test_nothing_is_fetched_or_run() -> None:
    picture = svg(residual(3))
    for word in ("<script", "<style", "<image", "href", "url(", "@import", "onload"):
        assert word not in picture
    assert picture.count("http") == 1  # the name space


def test_many_groups_of_one_box_are_counted() -> None:
    entries = tuple(Entry(f"g{i}", 2, 2) for i in range(9))
    picture = svg(Drawing("cat", (Box("cat", "", tuple(range(9)), kind="join"),), (), entries))
    assert "+6" in texts(picture)


def test_a_frozen_box_is_grey_and_says_why() -> None:
    box = Box("head", "linear 10", (), (), ("head", "frozen: head.weight[0]: output (output)"))
    root = ElementTree.fromstring(svg(Drawing("net", (box,), (), ())))
    (group,) = (
        g for g in root.iter(f"{SVG}g") if "head.weight" in (g.findtext(f"{SVG}title") or "")
    )
    rect = group.find(f"{SVG}rect")
    assert rect is not None
    red, green, blue = (rect.attrib["fill"][i : i + 2] for i in (1, 3, 5))
    assert red == green == blue


def test_an_empty_drawing_is_a_picture_too() -> None:
    assert "nothing" in (
        ElementTree.fromstring(svg(Drawing("nothing", (), (), ()))).find(f"{SVG}title").text or ""
    )  # type: ignore[union-attr]


def test_groups_have_colours_of_their_own() -> None:
    colours = [colour(i) for i in range(60)]
    assert len(set(colours)) == 60
    assert all(contrast(a, "#ffffff") > 1.4 for a in colours)
    for a, b in pairwise(colours):
        assert sum(abs(int(a[i : i + 2], 16) - int(b[i : i + 2], 16)) for i in (1, 3, 5)) > 60


def test_numbers_can_be_read_on_their_colours() -> None:
    entries = tuple(Entry(f"g{i}", 2, 2) for i in range(60))
    root = ElementTree.fromstring(svg(Drawing("net", (), (), entries)))
    chips = [g for g in root.iter(f"{SVG}g") if (g.findtext(f"{SVG}text") or "").isdigit()]
    assert len(chips) == 60
    for chip in chips:
        rect, number = chip.find(f"{SVG}rect"), chip.find(f"{SVG}text")
        assert rect is not None
        assert number is not None
        assert (
            contrast(rect.attrib["fill"], number.attrib["fill"].replace("black", "#000000")) > 4.5
        )
