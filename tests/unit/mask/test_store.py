# SPDX-License-Identifier: Apache-2.0
"""A ticket's file: the same bytes for the same ticket, and one line for any other file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from edgeprune.errors import InputError, OutputError
from edgeprune.mask import About, Mask, Ticket, read_ticket, write_ticket

ABOUT = About("imp", 7, "f" * 64, "n:m", {"density": 0.5, "levels": [1, 2], "options": {"a": None}})


def ticket() -> Ticket:
    torch.manual_seed(0)
    keep = {"z.weight": torch.rand(4, 3) < 0.5, "a.weight": torch.rand(2, 2, 3).movedim(2, 0) < 0.5}
    start = {
        "z.weight": torch.randn(4, 3).t(),
        "norm.running_mean": torch.randn(3),
        "a.count": torch.tensor(5),
        "half": torch.randn(2).half(),
    }
    return Ticket(Mask(keep, ABOUT), start)


def test_round_trip(tmp_path: Path) -> None:
    path, given = tmp_path / "t.safetensors", ticket()
    write_ticket(path, given)
    got = read_ticket(path)
    assert got.mask.about == ABOUT
    assert got.mask.same(given.mask)
    # An order that safetensors itself doesn't keep, and that pairing by place depends on
    assert list(got.mask.keep) == ["z.weight", "a.weight"]
    assert got.start is not None and given.start is not None
    assert list(got.start) == list(given.start)
    for name, value in given.start.items():
        assert torch.equal(got.start[name], value) and got.start[name].dtype == value.dtype
    again = tmp_path / "again"
    write_ticket(again, got)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "t.safetensors"]


def test_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_ticket(path, Ticket(ticket().mask))
    assert read_ticket(path).start is None


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    write_ticket(tmp_path / "t", ticket())
    with safe_open(tmp_path / "t", framework="pt") as file:
        header = json.loads(file.metadata()["edgeprune.ticket"])
        assert file.get_tensor("keep/z.weight").dtype == torch.bool
    assert header["density"] == ticket().mask.density
    assert (header["method"], header["seed"], header["model"]) == ("imp", 7, "f" * 64)


def written(tmp_path: Path, **changes: Any) -> Path:
    """A ticket whose header says something else."""
    path = tmp_path / "t"
    write_ticket(path, ticket())
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["edgeprune.ticket"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header |= changes
    text = json.dumps({k: v for k, v in header.items() if v is not ...})
    return put(path, tensors, text)


def put(path: Path, tensors: dict[str, torch.Tensor], text: str) -> Path:
    save_file(tensors, path, {"edgeprune.ticket": text})
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 3}, "a ticket of schema version 3, this edgeprune reads 2"),
        ({"schema_version": 1}, "a ticket of schema version 1, this edgeprune reads 2"),
        ({"schema_version": "2\n"}, "schema_version can't be that"),
        ({"structure": "triangles"}, "structure can't be that"),
        ({"method": 3}, "method can't be that"),
        ({"seed": "x"}, "seed can't be that"),
        ({"facts": [1]}, "facts can't be that"),
        ({"facts": {"options": [1]}}, "options can't be that"),
        ({"facts": {"options": {"pattern": 5}}}, "options.pattern can't be that"),
        ({"facts": {"loss": float("nan")}}, "damaged: its header: NaN is no finite number"),
        ({"facts": {"loss": [float("-inf")]}}, "its header: -Infinity is no finite number"),
        ({"order": []}, "it has other tensors"),
        ({"order": [["a"]]}, "damaged: its header"),
        ({"order": 5}, "damaged: its header"),
        ({"method": ...}, "damaged: its header lacks 'method'"),
        ({"schema_version": ...}, "damaged: its header lacks 'schema_version'"),
    ],
)
def test_headers_that_are_not_ours(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        read_ticket(path)
    assert says in str(error.value) and str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "snip"},
        {"seed": 8},
        {"model": "0" * 64},
        {"structure": "unstructured"},
        {"facts": {}},
        {"density": 0.9},
        {"more": 1},
        {"order": sorted(f"keep/{n}" for n in ("z.weight", "a.weight"))
            + [f"start/{n}" for n in ("a.count", "half", "norm.running_mean", "z.weight")]},
    ],
)  # fmt: skip
def test_an_edited_header_is_noticed(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="header or tensors aren't those that were written"):
        read_ticket(written(tmp_path, **changes))


@pytest.mark.parametrize("depth", [40, 500, 100_000])
def test_a_header_nested_too_deeply(depth: int, tmp_path: Path) -> None:
    path = written(tmp_path)
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["edgeprune.ticket"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    nest = "[" * depth + "1" + "]" * depth
    for where in (f'"more": {nest}, ', f'"schema_version": {nest}, '):
        put(path, tensors, "{" + where + text.replace('"schema_version": 2, ', "")[1:])
        with pytest.raises(InputError) as error:
            read_ticket(path)
        assert "damaged: its header" in str(error.value) and "\n" not in str(error.value)


def test_numbers_beyond_the_largest(tmp_path: Path) -> None:
    """Python reads them as infinity, which couldn't be written again."""
    path = written(tmp_path)
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["edgeprune.ticket"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    table = json.loads(text) | {"density": 0.25}
    put(path, tensors, json.dumps(table).replace("0.25", "1e999"))
    with pytest.raises(InputError, match="its header: 1e999 is no finite number"):
        read_ticket(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"'])
def test_headers_that_are_no_table(tmp_path: Path, text: str) -> None:
    save_file({"keep/w": torch.ones(2).bool()}, tmp_path / "t", {"edgeprune.ticket": text})
    with pytest.raises(InputError, match="damaged: its header"):
        read_ticket(tmp_path / "t")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with pytest.raises(InputError, match="there is no such file"):
        read_ticket(path)
    os.mkfifo(tmp_path / "pipe")  # which would be waited for
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{place}: is no file"):
            read_ticket(place)
    for content in (b"", b"\x00" * 64, b"PK\x03\x04 a zip", b"\xff" * 9):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no ticket, or damaged"):
            read_ticket(path)
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match="a safetensors file, but no ticket"):
        read_ticket(path)
    write_ticket(path, ticket())
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file({n: ~t if t.dtype == torch.bool else t for n, t in tensors.items()}, path, meta)
    with pytest.raises(InputError, match="damaged: header or tensors aren't those that were"):
        read_ticket(path)
    write_ticket(path, Ticket(Mask({}, ABOUT), {"w": torch.ones(2), "none": torch.ones(0, 3)}))
    with pytest.raises(InputError, match="no masks of type bool"):
        read_ticket(path)


@settings(max_examples=60)
@given(data=st.data())
def test_damage_anywhere_is_told_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What still reads is the very ticket."""
    path = tmp_path_factory.getbasetemp() / "damaged"
    write_ticket(path, ticket())
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        got = read_ticket(path)
    except InputError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
    else:
        assert got.mask.same(ticket().mask) and got.mask.about == ABOUT


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        write_ticket(tmp_path / "folder", ticket())
    with pytest.raises(ValueError, match="JSON"):
        mask = Mask(ticket().mask.keep, About("imp", facts={"loss": float("nan")}))
        write_ticket(tmp_path / "nan", Ticket(mask))
    assert not (tmp_path / "nan").exists()


def test_weights_to_start_from_that_are_no_numbers(tmp_path: Path) -> None:
    given = ticket()
    assert given.start is not None
    endless = {**given.start, "mask": torch.tensor([0.0, -torch.inf])}  # as attention's buffers are
    write_ticket(tmp_path / "t", Ticket(given.mask, endless))
    read_ticket(tmp_path / "t")
    broken = {**given.start, "half": torch.tensor([1.0, torch.nan]).half()}
    write_ticket(tmp_path / "t", Ticket(given.mask, broken))
    with pytest.raises(InputError, match="hold NaN, in 'half'"):
        read_ticket(tmp_path / "t")
    for value in (torch.inf, -torch.inf, torch.nan):
        covered = {**given.start, "z.weight": torch.full((4, 3), value)}
        write_ticket(tmp_path / "t", Ticket(given.mask, covered))
        with pytest.raises(InputError, match=r"hold NaN or infinity, in 'z\.weight'"):
            read_ticket(tmp_path / "t")
    small = {**given.start, "half": torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn)}
    write_ticket(tmp_path / "t", Ticket(given.mask, small))
    with pytest.raises(InputError, match="hold NaN, in 'half'"):
        read_ticket(tmp_path / "t")
