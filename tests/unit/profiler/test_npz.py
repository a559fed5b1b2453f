# SPDX-License-Identifier: Apache-2.0
"""Hostile ``.npz`` files are refused from their headers, by each of their readers."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeprune.data import open_data
from edgeprune.data.tree import ZipTree
from edgeprune.deploy.health import Expected, read_batch
from edgeprune.errors import InputError
from edgeprune.profiler.inputs import real_inputs
from edgeprune.profiler.npz import opened
from edgeprune.profiler.runtime import TensorSpec

MEBI = 2**20


def header(shape: str, dtype: str = "'|u1'", version: int = 1, length: int | None = None) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    size = (len(text) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def member(path: Path, head: bytes, zeros: int = 0, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("x.npy", "w") as file:
        file.write(head)
        for _ in range(zeros // MEBI):
            file.write(bytes(MEBI))
    return path


def declared(path: Path, size: int) -> Path:
    """``path``, whose directory now says that its member inflates to ``size`` bytes."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = size.to_bytes(4, "little")
    path.write_bytes(content)
    return path


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that small files reach."""
    monkeypatch.setattr("edgeprune.profiler.npz._ALWAYS", 8 * MEBI)


@pytest.mark.usefixtures("low")
def test_every_reader_refuses_what_inflates_too_much(tmp_path: Path) -> None:
    bomb = member(tmp_path / "x.npz", header(f"({32 * MEBI},)"), 32 * MEBI)
    assert bomb.stat().st_size < MEBI // 8
    spec = TensorSpec("x", (32 * MEBI,), "uint8")
    expected = Expected(runtime="", inputs=("x",), outputs=())
    tracemalloc.start()
    for read in (
        lambda: open_data(str(bomb), seed=0),
        lambda: real_inputs([spec], bomb),
        lambda: read_batch(bomb, "x", expected),
    ):
        with pytest.raises(InputError, match=r"x\.npz: .* would take .* times the size"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 8 * MEBI
    tracemalloc.stop()


@pytest.mark.usefixtures("low")
def test_small_integers_count_as_what_they_become(tmp_path: Path) -> None:
    path = member(tmp_path / "x.npz", header(f"({4 * MEBI},)"), 4 * MEBI)
    with opened(path) as file, pytest.raises(InputError, match="array 'x' would take"):
        file.read("x")


@pytest.mark.usefixtures("low")
def test_what_isnt_compressed_is_read_whatever_its_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(16 * MEBI, np.uint8))
    with opened(tmp_path / "x.npz") as file:
        assert file.read("x").nbytes == 16 * MEBI


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (header("(4,)", length=9999) + b"1234", "can't be read"),
        (header("(4,)", version=2, length=2**31) + b"1234", "its header has 2147483648 bytes"),
        (header("(4,)", version=1, length=60_000) + b"1234", "its header has 60000 bytes"),
        (header("(1099511627776, 1099511627776)") + b"1234", "is truncated"),
        (header("(" + "1, " * 70 + ")") + b"1", "can't be read"),
        (header("(-4,)") + b"1234", "can't be read"),
        (header("(" * 2000 + ")" * 2000), "can't be read"),
        (header("(1,)", dtype="'|O'") + b"1234", "holds Python objects"),
        (header("(1,)", dtype="[('a', '|O'), ('b', '<i4')]") + b"12345678", "holds Python objects"),
        (header("(1,)", dtype="'\\d'"), "can't be read"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(len(value)),
)
def test_a_header_that_lies_is_named(
    tmp_path: Path, head: bytes, says: str, recwarn: pytest.WarningsRecorder
) -> None:
    path = member(tmp_path / "x.npz", head)
    with opened(path) as file, pytest.raises(InputError) as error:
        file.read("x")
    assert f"{path}: array 'x'" in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not recwarn.list


@pytest.mark.parametrize("shape", ["(1099511627776, 0)", "(0, 1099511627776)", "(3, 0)"])
def test_rows_without_values_are_no_data(tmp_path: Path, shape: str) -> None:
    path = member(tmp_path / "x.npz", header(shape))
    with pytest.raises(InputError, match=r"array 'x' has (no rows|shape .*, so no values)"):
        open_data(str(path), seed=0)


def test_no_more_is_inflated_than_the_directory_says(tmp_path: Path) -> None:
    """64 kB that inflate to 64 MiB, and claim to be 1000 bytes; of an image, too."""
    array = declared(member(tmp_path / "x.npz", header("(4,)"), 64 * MEBI), 1000)
    tracemalloc.start()
    with opened(array) as file, pytest.raises(InputError, match="array 'x'"):
        file.read("x")
    with pytest.raises(InputError, match=r"x\.npy: can't be read"):
        ZipTree(array).read("x.npy")
    assert tracemalloc.get_traced_memory()[1] < 8 * MEBI
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    path = member(tmp_path / "x.npz", header("(4,)") + b"1234", method=method)
    with opened(path) as file, pytest.raises(InputError, match="neither stored nor deflated"):
        file.read("x")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    names = ["pipe.npz", "folder.npz", "zero.npz", "nowhere.npz", "x" * 300, "a\0b"]
    for name in names:
        with pytest.raises(InputError, match=r"can't be read as \.npz"), opened(tmp_path / name):
            pass


def test_an_array_that_isnt_there_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones(2), y=np.ones(2))
    (tmp_path / "x.npz").write_bytes(stream.getvalue())
    with opened(tmp_path / "x.npz") as file, pytest.raises(InputError, match="'z'; there: x, y"):
        file.read("z")
