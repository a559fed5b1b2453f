# SPDX-License-Identifier: Apache-2.0
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError, OutputError
from edgeprune.export.c_array import write_c_array
from edgeprune.export.flatbuffer import load, pack, read
from edgeprune.recipe import Numerics
from tests.unit.export.lite import Written

Lite = Callable[[Numerics], Written]

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "digits_data.h"

#ifdef DIGITS_ARENA_SIZE
static unsigned char arena[DIGITS_ARENA_SIZE];
#else
static unsigned char arena[1];
#endif
static const int shape[] = DIGITS_INPUT_0_SHAPE;

int main(void) {
  if ((uintptr_t)digits_data % 16 != 0) return 3;
  if (sizeof digits_data != DIGITS_DATA_SIZE) return 4;
  fprintf(stderr, "%d %d %u %u", DIGITS_INPUT_0_RANK, shape[1], DIGITS_OUTPUT_0_ELEMENTS,
          (unsigned)sizeof arena);
  return fwrite(digits_data, 1, DIGITS_DATA_SIZE, stdout) == DIGITS_DATA_SIZE ? 0 : 5;
}
"""
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def compilers() -> tuple[tuple[str, ...], ...]:
    return (
        ("gcc", "-std=c99"),
        ("gcc", "-std=c11"),
        ("g++", "-std=c++11", "-x", "c++"),
        ("g++", "-std=c++20", "-x", "c++"),
    )


def compiled(folder: Path, words: tuple[str, ...]) -> Path:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} isn't installed: apt-get install gcc g++")
    (folder / "main.c").write_text(MAIN)
    program = folder / "program"
    names = [str(folder / "digits_data.c"), str(folder / "main.c")]
    command = [*words[:1], *STRICT, *words[1:], *names, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return program


def ran(program: Path) -> tuple[bytes, str]:
    done = subprocess.run([str(program)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("words", compilers(), ids=lambda words: f"{words[0]} {words[1]}")
def test_it_compiles_and_holds_the_files_bytes(
    lite: Lite, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = lite("int8").path
    source, header = write_c_array(file, tmp_path, name="digits", arena=6784)
    assert (source.name, header.name) == ("digits_data.c", "digits_data.h")
    content, said = ran(compiled(tmp_path, words))
    assert content == file.read_bytes()
    assert said == "4 8 10 6784"


def test_c_and_cpp_link_together(lite: Lite, tmp_path: Path) -> None:
    """The array compiled as C++ is found from C."""
    if shutil.which("g++") is None:
        pytest.skip("g++ isn't installed: apt-get install g++")
    write_c_array(lite("int8").path, tmp_path, name="digits", arena=None)
    (tmp_path / "main.c").write_text(MAIN)
    for command in (
        ["g++", "-x", "c++", "-c", "digits_data.c", "-o", "data.o"],
        ["gcc", "-std=c99", "main.c", "data.o", "-o", "program"],
    ):
        subprocess.run(command, cwd=tmp_path, timeout=120, check=True)
    content, said = ran(tmp_path / "program")
    assert content == lite("int8").path.read_bytes()
    assert said.endswith(" 1")


def test_an_arena_that_was_not_measured_has_no_constant(lite: Lite, tmp_path: Path) -> None:
    _, header = write_c_array(lite("int8").path, tmp_path, arena=None)
    text = header.read_text()
    assert "_ARENA_SIZE" not in text
    assert "--device tflm" in text


def test_the_header_names_the_file_its_hash_and_the_operators(lite: Lite, tmp_path: Path) -> None:
    file = lite("int8").path
    for path in write_c_array(file, tmp_path, arena=16):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in path.read_text()
        assert file.name in path.read_text()
    text = (tmp_path / "model_data.h").read_text()
    kinds = {op.kind for op in read(file).ops}
    assert set(re.findall(r"^ \*     (\w+)$", text, re.MULTILINE)) == kinds
    assert f"#define MODEL_OPERATORS {len(kinds)}\n" in text


def test_equal_files_give_equal_texts(lite: Lite, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths = write_c_array(lite("int8").path, tmp_path / name, arena=6784)
        texts.append([path.read_bytes() for path in paths])
    assert texts[0] == texts[1]


def edited(path: Path, folder: Path, name: bytes) -> Path:
    """The file with its first quantized tensor as its only input, under another name."""
    model = load(path.read_bytes(), path.name)
    graph = model.subgraphs[0]
    index = int(graph.operators[0].outputs[0])
    graph.tensors[index].name = name
    graph.inputs = np.array([index], np.int32)
    result = folder / "edited.tflite"
    result.write_bytes(pack(model))
    return result


def test_a_quantized_input_has_its_scale(lite: Lite, tmp_path: Path) -> None:
    file = edited(lite("int8").path, tmp_path, b"x")
    _, header = write_c_array(file, tmp_path, name="digits", arena=32)
    tensor = read(file).inputs[0]
    assert tensor.scale is not None and tensor.zero_point is not None
    text = header.read_text()
    scale = re.search(r"#define DIGITS_INPUT_0_SCALE ([0-9.e+-]+)f\n", text)
    assert scale is not None
    assert np.float32(scale[1]) == np.float32(tensor.scale[0])
    assert f"#define DIGITS_INPUT_0_ZERO_POINT ({int(tensor.zero_point[0])})\n" in text
    assert "DIGITS_OUTPUT_0_SCALE" not in text  # it is float
    ran(compiled(tmp_path, ("gcc", "-std=c99")))


@pytest.mark.parametrize(
    "name", [b"*/ #error out /*", b"a\n#error b", b"/* nested", b"??/\n*/", "größe\\".encode()]
)
def test_no_name_ends_the_comment(lite: Lite, tmp_path: Path, name: bytes) -> None:
    file = edited(lite("int8").path, tmp_path, name)
    odd = file.rename(tmp_path / "a*\n#error b ?? c.tflite")
    write_c_array(odd, tmp_path, name="digits", arena=None)
    content, _ = ran(compiled(tmp_path, ("gcc", "-std=c99")))
    assert content == odd.read_bytes()


@given(extra=st.binary(max_size=200))
def test_every_byte_is_there(
    lite: Lite, tmp_path_factory: pytest.TempPathFactory, extra: bytes
) -> None:
    """Whatever follows the flatbuffer in the file, and whatever the length."""
    folder = tmp_path_factory.mktemp("bytes")
    content = lite("int8").path.read_bytes() + extra
    (folder / "m.tflite").write_bytes(content)
    source, _ = write_c_array(folder / "m.tflite", folder, arena=None)
    rows = source.read_text().partition("= {\n")[2]
    assert bytes(int(value, 16) for value in re.findall(r"0x([0-9a-f]{2}),", rows)) == content


def test_a_file_longer_than_a_block_is_whole(lite: Lite, tmp_path: Path) -> None:
    content = lite("int8").path.read_bytes() + bytes(range(256)) * 1021 + b"odd"
    (tmp_path / "m.tflite").write_bytes(content)
    write_c_array(tmp_path / "m.tflite", tmp_path, name="digits", arena=None)
    assert ran(compiled(tmp_path, ("gcc", "-std=c99")))[0] == content


@pytest.mark.parametrize("name", ["", "1st", "my-model", "a b", "m;", "modèle", "a/b", "_m", "m\n"])
def test_a_name_that_is_none_of_c_is_refused(lite: Lite, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can't be part of a C name"):
        write_c_array(lite("int8").path, tmp_path, name=name, arena=None)
    assert list(tmp_path.iterdir()) == []


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.tflite: can't be read: No such file"):
        write_c_array(tmp_path / "gone.tflite", tmp_path, arena=None)
    (tmp_path / "x.tflite").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"x\.tflite: no TFLite file"):
        write_c_array(tmp_path / "x.tflite", tmp_path, arena=None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tflite"]


def test_a_folder_that_can_not_be_written_is_named(lite: Lite, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/model_data\.h: can't be written"):
        write_c_array(lite("int8").path, tmp_path / "none", arena=None)
    (tmp_path / "model_data.h").mkdir()
    with pytest.raises(OutputError, match=r"model_data\.h: can't be written: Is a directory"):
        write_c_array(lite("int8").path, tmp_path, arena=None)
    assert [path.name for path in tmp_path.iterdir()] == ["model_data.h"]
