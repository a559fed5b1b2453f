# SPDX-License-Identifier: Apache-2.0
"""What is decided before anything is done."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.deploy.listing import Listing, Version, parse_listing
from edgeprune.deploy.plan import make_plan, surplus
from edgeprune.errors import DeviceError, InputError
from tests.unit.deploy.boards import release

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def listing(chain: list[str], others: list[str] | None = None) -> Listing:
    """Versions, each one current before the one that it follows in ``chain``."""
    before = [*chain[1:], None][: len(chain)]
    found = {n: Version(n, 10, b) for n, b in zip(chain, before, strict=True)}
    found |= {name: Version(name, 10, None) for name in others or ()}
    return Listing(versions=found, current=chain[0] if chain else None)


CHAINS = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=8)


@given(CHAINS, CHAINS, st.integers(2, 6), st.data())
def test_the_new_and_the_last_version_always_stay(
    chain: list[str], others: list[str], keep: int, data: st.DataObject
) -> None:
    others = [name for name in others if name not in chain]
    there = listing(chain, others)
    new = data.draw(st.sampled_from([*chain, *others, "new"]))
    gone = surplus(there, new, keep=keep)
    left = (set(chain) | set(others) | {new}) - set(gone)
    assert new in left
    former = chain[0] if chain and chain[0] != new else (chain[1:2] or [None])[0]
    assert former is None or former in left
    assert len(left) <= keep
    assert len(gone) == max(0, len(set(chain) | set(others) | {new}) - keep)
    assert set(gone) <= set(there.versions)
    if not set(others) - set(gone) - {new}:
        return
    assert not set(chain) & set(gone)  # what was never current again goes first


def test_history_ends_where_links_go_in_circles() -> None:
    there = Listing(
        versions={"a": Version("a", 1, "b"), "b": Version("b", 1, "a"), "c": Version("c", 1, None)},
        current="a",
    )
    assert there.history() == ("a", "b", "c")
    assert there.previous == "b"


def test_what_arrived_is_not_sent_again(tmp_path: Path) -> None:
    what = release(tmp_path, B)
    there = Listing(
        versions={A: Version(A, 10, None)}, current=A, incoming={B: 1000, C: 7}, whole={}
    )
    plan = make_plan(there, what, keep=5)
    assert (plan.upload, plan.switch, plan.fallback, plan.undo) == (True, True, A, True)
    assert plan.sent == plan.bytes - 1000
    assert plan.drop == (C,)
    text = " | ".join(plan.lines())
    assert f"upload {B}: {plan.bytes:,} B, 1 kB of them are there" in text
    assert f"switch current from {A} to {B}" in text
    assert f"remove what arrived of {C}" in text


@pytest.mark.parametrize(("unproven", "undo"), [(True, True), (False, False)])
def test_only_an_unproven_switch_is_taken_back(tmp_path: Path, unproven: bool, undo: bool) -> None:
    what = release(tmp_path, B)
    there = Listing(
        versions={A: Version(A, 10, None), B: Version(B, 10, A)},
        current=B,
        unproven=unproven,
        whole={B: True},
        sums={B: tuple(what.sums().splitlines())},
    )
    plan = make_plan(there, what, keep=5)
    assert (plan.upload, plan.switch, plan.fallback, plan.undo) == (False, False, A, undo)
    assert plan.sent == 0


def told(*lines: str) -> Listing:
    return parse_listing("\n".join(["welcome to the board", "begin", *lines, "end", ""]), "board")


def test_a_listing_is_read_whatever_a_login_shell_says_first() -> None:
    there = told(
        f"link current versions/{B}",
        f"link unproven versions/{B}",
        "link lock edgeprune-0a-1-x.1.2-desk",
        f"version {A} - 12",
        f"version {B} ../versions/{A} 34",
        f"version {C} ../versions/gone 1",
        f"incoming {C} 5",
        f"whole {B}",
        f"sum {B} {'0' * 64}  a model's name.onnx",
        f"damaged {C}",
    )
    assert (there.current, there.previous, there.unproven) == (B, A, True)
    assert there.history() == (B, A, C)
    assert there.versions[C].before is None
    assert there.incoming == {C: 5}
    assert there.whole == {B: True, C: False}
    assert there.sums == {B: (f"{'0' * 64}  a model's name.onnx",)}
    assert told("absent") == Listing()


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["missing sync", "missing wc"], DeviceError, "the board has no sync, wc; install"),
        (["nofolder"], InputError, "is a file, not a folder"),
        (["other current"], InputError, "its 'current' wasn't made by edgeprune; move it away"),
        (["link current /etc"], InputError, "current leads out of versions/"),
        (["link current ?"], InputError, "current leads out of versions/"),
        (["link current versions/../../etc"], InputError, "current leads out of versions/"),
        (["link current versions/.."], InputError, "current leads out of versions/"),
        ([f"link current versions/{A}"], InputError, "which isn't a version"),
    ],
)
def test_what_can_not_be_used_is_refused(
    lines: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        told(*lines)


@pytest.mark.parametrize(
    "text",
    ["", "begin\nabsent\n", "-sh: not found\n", "end"]
    + [f"begin\n{line}\nend" for line in ("version a -", "link x", "incoming a b", "sum a")],
)
def test_a_cut_answer_is_none(text: str) -> None:
    with pytest.raises(DeviceError, match="no usable answer"):
        parse_listing(text, "board")
