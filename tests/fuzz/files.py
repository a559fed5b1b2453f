# SPDX-License-Identifier: Apache-2.0
"""Broken data, manifests, lock files and TOML, and what must come of them: an answer, or one line.

Run as a program (``python -m tests.fuzz.files npz 60 SEED``) it breaks files for so many seconds,
as ``tests.fuzz.models`` does.
"""

import contextlib
import copy
import io
import json
import random
import sys
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.cli.main import main
from edgeprune.data import open_data
from edgeprune.errors import InputError
from edgeprune.profiler.inputs import real_inputs
from edgeprune.profiler.runtime import TensorSpec
from edgeprune.recipe import load_recipe
from edgeprune.report.seal import seal_of
from tests.fuzz.loop import run
from tests.fuzz.models import LIMITS, made
from tests.unit.check.made import PROJECT, result

__all__ = ["FORMS", "changed", "judge", "seeds"]

FORMS = ("npz", "manifest", "lock", "project", "recipe", "target")
ROOT = Path(__file__).parents[2]
_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**31, 2**63, 2**70, 10**400, 0.5, 1e308, float("inf"), float("nan"), True, None),
    *("", "x" * 5000, "a\0b", "\ud800", "../../etc/passwd", "/dev/zero", "rpi4", "\x1b[31m"),
    *([], {}, [[]], [{}], {"a": {"a": {}}}, ["x"] * 50),
)


@cache
def seeds(form: str) -> tuple[bytes, ...]:
    """Small whole files."""
    if form == "npz":
        return tuple(_npz(save) for save in (np.savez, np.savez_compressed))
    if form == "project":
        return (PROJECT.encode(),)
    if form == "recipe":
        return (b"seed = 1\n[prune]\nratio = 0.5\nexclude = ['a.*']\n[finetune]\nepochs = 2\n",)
    if form == "target":
        return tuple(path.read_bytes() for path in sorted((ROOT / "targets").glob("*.toml")))
    with tempfile.TemporaryDirectory() as name:
        if form == "manifest":
            return ((result(Path(name)) / "manifest.json").read_bytes(),)
        result(Path(name) / "out" / "net" / "rpi4")
        (Path(name) / "edgeprune.toml").write_text(PROJECT)
        with contextlib.chdir(name):
            assert _main("baseline", "accept", "--reason", "first") == 0
        return ((Path(name) / "edgeprune.lock.json").read_bytes(),)


def _npz(save: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, x=np.arange(60, dtype=np.float32).reshape(20, 3), y=np.arange(20) % 2)
    return stream.getvalue()


def changed(content: bytes, chance: random.Random) -> bytes:
    """The same file, whole as JSON or TOML, with a few values that are others."""
    is_json = content.lstrip().startswith(b"{")
    table = json.loads(content) if is_json else tomllib.loads(content.decode())
    for _ in range(chance.choice((1, 1, 2, 3))):
        _change(table, chance)
    if not is_json:
        return _toml(table, "").encode("utf-8", "surrogatepass")
    if "seal" in table and chance.random() < 0.7:
        with contextlib.suppress(ValueError):
            table["seal"] = seal_of(table)
    text = json.dumps(table)
    if chance.random() < 0.1:  # a key twice
        text = text.replace('{"', '{"models": {}, "', 1)
    return text.encode()


def _change(value: Any, chance: random.Random) -> None:
    """Change one value, or take it away, somewhere in ``value``."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.8:
            value = value[key]
            continue
        if chance.random() < 0.15:
            del value[key]
        else:
            value[key] = copy.deepcopy(chance.choice(_VALUES))
        return


def _toml(table: dict[str, Any], name: str) -> str:
    plain = {key: each for key, each in table.items() if not isinstance(each, dict)}
    lines = [f"{json.dumps(key)} = {_literal(each)}\n" for key, each in plain.items()]
    parts = [f"[{name[:-1]}]\n" if name else "", *lines]
    for key, each in table.items():
        if isinstance(each, dict):
            parts.append(_toml(each, f"{name}{json.dumps(key)}."))
    return "".join(parts)


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps("" if value is None else value)


def judge(form: str, content: bytes, path: Path) -> str:
    """Use a file with that content: ``read``, or ``refused`` with one line.

    Anything else is an error of the reader, and goes through.
    """
    folder = path.parent
    if form in ("npz", "recipe"):
        return _read(form, content, folder / f"x.{form}")
    names = {"manifest": "out/net/rpi4/manifest.json", "lock": "edgeprune.lock.json"}
    place = folder / names.get(form, "edgeprune.toml" if form == "project" else "x.toml")
    if form in ("manifest", "lock", "project") and not (folder / "out").exists():
        result(folder / "out" / "net" / "rpi4")
        (folder / "edgeprune.toml").write_text(PROJECT)
    place.write_bytes(content)
    words = ("targets", "show", "./x.toml") if form == "target" else ("check", "--allow-unmeasured")
    with contextlib.chdir(folder):
        code = _main(*words)
    return "refused" if code == 2 else "read"


def _read(form: str, content: bytes, path: Path) -> str:
    path.write_bytes(content)
    found = "refused"
    readers: tuple[Callable[[], object], ...] = (
        lambda: open_data(str(path), seed=0),
        lambda: real_inputs([TensorSpec("x", (1, 3), "float32")], path),
    )
    for read in readers if form == "npz" else (lambda: load_recipe(path),):
        try:
            read()
            found = "read"
        except InputError as error:
            text = str(error)
            assert text.isprintable(), repr(text)
            assert len(text) < 1000
    return found


def _main(*words: str) -> int:
    """The exit code of a command, which must be 0, 1 or 2; of 2, with one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    assert code in (0, 1, 2), err.getvalue()
    errors = [line for line in err.getvalue().splitlines() if not line.startswith(">")]
    assert code != 2 or (len(errors) == 1 and errors[0].isprintable()), err.getvalue()
    return code


if __name__ == "__main__":
    form, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    make = made(seeds(form), changed if form != "npz" else None)
    sys.exit(run(form, seconds, seed, seeds(form), make, partial(judge, form), LIMITS))
