# SPDX-License-Identifier: Apache-2.0
"""Broken model files and tickets, and what must come of them: a model, or one line of error.

Run as a program (``python -m tests.fuzz.models archive 60 SEED``) it breaks files for so many
seconds, as ``tests.fuzz.mutate`` does. ``archive`` is the strict zip reader alone, ``pt2`` and
``pt`` load whole files, ``ticket`` reads tickets.
"""

import io
import json
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from edgeprune.errors import InputError
from edgeprune.mask import About, Mask, Ticket, read_ticket, write_ticket
from edgeprune.model import load
from edgeprune.model.container import Container
from tests.fuzz.loop import Limits, run
from tests.fuzz.mutate import broken
from tests.unit.model.hostile import Small, members, saved_program, zipped

__all__ = ["FORMS", "LIMITS", "changed", "judge", "made", "seeds"]

FORMS = ("archive", "pt2", "pt", "ticket")
LIMITS = Limits(seconds=10, addresses=16 * 2**30, growth=2**30)
_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**31, 2**62, 2**63, 2**70, 0.5, 1e308, True, False, None, "", [], {}),
    *("torch.ops.aten.add.Tensor", "torch.ops.aten.empty.memory_format", "s0", "9**9**9", "x" * 99),
    *({"as_int": 10**12}, {"as_expr": {"expr_str": "2**s0", "hint": None}}, {"as_none": True}),
)


@cache
def seeds(form: str) -> tuple[bytes, ...]:
    """Small whole files."""
    torch.manual_seed(0)
    state, buffer = Small().state_dict(), io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3, "lr": 0.1}, buffer)
    tensors = buffer.getvalue()
    if form == "pt":
        torch.save(state, legacy := io.BytesIO(), _use_new_zipfile_serialization=False)
        return tensors, legacy.getvalue(), zipped(members(tensors), zipfile.ZIP_DEFLATED)
    if form == "ticket":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.safetensors"
            about = About("imp", 0, "0" * 64, "unstructured", {"options": {}})
            keep = {"head.weight": torch.ones(2, 4, dtype=torch.bool)}
            write_ticket(path, Ticket(Mask(keep, about), state))
            return (path.read_bytes(),)
    batch = torch.export.Dim("batch", max=64)
    program = saved_program(Small(), torch.ones(2, 4), dynamic_shapes=({0: batch},))
    small = saved_program()
    whole = (program, small, zipped(members(program), zipfile.ZIP_DEFLATED))
    return (*whole, tensors) if form == "archive" else whole


def changed(content: bytes, chance: random.Random) -> bytes:
    """A file that is whole as an archive, with a few things wrong in its members."""
    if not content.startswith(b"PK"):
        return broken(content, content, chance)
    parts = members(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        name = chance.choice(sorted(parts))
        if chance.random() < 0.1:
            del parts[name]
        elif name.endswith(".json"):
            parts[name] = json.dumps(_rearranged(json.loads(parts[name]), chance)).encode()
        else:
            parts[name] = broken(parts[name], content, chance)
        if not parts:
            return b"PK\3\4"
    return zipped(parts, chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _rearranged(document: Any, chance: random.Random) -> Any:
    """A JSON document with one value gone, replaced, or in another's place."""
    if not isinstance(document, dict | list):  # what the last change left
        return chance.choice(_VALUES)
    places: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        part = left.pop()
        entries = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in entries:
            places.append((part, key))
            if isinstance(value, dict | list):
                left.append(value)
    if not places:
        return chance.choice(_VALUES)
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1:
            other, there = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[there]))
        case 2 if isinstance(holder[key], str):
            text = broken(holder[key].encode(), b"torch.ops.aten" * 5, chance)
            holder[key] = text.decode(errors="replace")
        case _:
            holder[key] = json.loads(json.dumps(chance.choice(_VALUES)))
    return document


def judge(form: str, content: bytes, path: Path) -> str:
    """Read a file with that content: ``read``, or ``refused`` with one printable line.

    Anything else is an error of the reader, and goes through.
    """
    path.write_bytes(content)
    try:
        if form == "archive":
            _same_twice(content)
        elif form == "ticket":
            read_ticket(path)
        else:
            arch = "tests.unit.model.hostile:Small"
            load(path, arch=arch, input_shapes=("1x4",) if form == "pt" else None)
    except InputError as error:
        text = str(error)
        assert error.exit_code == 2
        assert text.isprintable(), repr(text)
        assert len(text) < 1000
        return "refused"
    return "read"


def _same_twice(content: bytes) -> None:
    """What the strict reader takes, any reader finds in the archive that it writes."""
    archive = Container(io.BytesIO(content))
    names = sorted(archive)
    found = {name: archive.read(name, 2**20) for name in names}
    again = archive.rewritten({n: found[n] for n in names[::2]}, set(names[1::2]))
    with zipfile.ZipFile(again) as other:
        contents = {name: other.read(name) for name in other.namelist()}

    assert contents in ({f"archive/{n}": data for n, data in found.items()}, found)


def made(
    whole: Sequence[bytes], change: Callable[[bytes, random.Random], bytes] | None
) -> Callable[[random.Random], bytes]:
    """Breaks one of the ``whole`` files, by ``change`` where there is one or byte by byte."""

    def make(chance: random.Random) -> bytes:
        content = chance.choice(whole)
        if chance.random() < 0.6 and change is not None:
            return change(content, chance)
        return broken(content, chance.choice(whole), chance)

    return make


if __name__ == "__main__":
    form, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    make = made(seeds(form), changed if form in ("pt2", "pt") else None)
    sys.exit(run(form, seconds, seed, seeds(form), make, partial(judge, form), LIMITS))
