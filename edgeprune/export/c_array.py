# SPDX-License-Identifier: Apache-2.0
"""A TFLite file as C: for microcontrollers, which have no file-system to load it from."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import __version__
from edgeprune.errors import InputError
from edgeprune.export.flatbuffer import Graph, Tensor, load, view
from edgeprune.writing import save

__all__ = ["write_c_array"]

Array = np.ndarray[Any, Any]
ALIGNMENT = 16
_ROW = 16
"""Bytes of the file in a line."""
_BLOCK = 4096 * _ROW
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:;,/ +@-]")
"""What could end a comment, be a trigraph, or begin a line."""
_HOW_ARENA = """\
/* Bytes of the tensor arena: the smallest in which TensorFlow Lite Micro was seen to load and run
 * the model, with reference kernels on a 64-bit machine. Pointers of 32 bits need less; the scratch
 * buffers of kernels made for a chip (CMSIS-NN, ESP-NN) come on top. Align the arena to 16 bytes.
 * MicroInterpreter's arena_used_bytes() tells what the firmware itself uses. */
"""
_NO_ARENA = """\
/* The tensor arena was not measured, so there is no constant for it. To measure it:
 *     edgeprune device add tflm
 *     edgeprune profile FILE.tflite --device tflm
 * or take a large one, and print MicroInterpreter's arena_used_bytes() in the firmware. */
"""


def write_c_array(
    tflite: Path, folder: Path, *, name: str = "model", arena: int | None
) -> tuple[Path, Path]:
    """Write ``<name>_data.c`` and ``<name>_data.h`` (C99 and C++11), each whole or not at all.

    The array is ``<name>_data``, aligned to 16 bytes; the header gives its length, its hash, the
    inputs' and outputs' types, shapes, scales and zero points, and the operators to register, as
    constants. Equal files give equal texts.

    Args:
        tflite: The file.
        folder: Where to write; it must be there.
        name: What symbols and files begin with: letters, digits and ``_``, a letter first.
        arena: Bytes of the tensor arena, where it was measured.

    Returns:
        The paths of the ``.c`` and the ``.h`` file.

    Raises:
        InputError: ``tflite`` can't be read or is no TFLite file; ``name`` is none of C's.
        OutputError: ``folder`` can't be written.
        MissingExtra: ai-edge-litert isn't installed.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name '{name}' can't be part of a C name: letters, digits and '_', a letter first"
        )
    try:
        content = tflite.read_bytes()
    except OSError as error:
        raise InputError(f"{tflite}: can't be read: {error.strerror}") from None
    graph = view(load(content, str(tflite)))
    title = (
        f"/* {_plain(tflite.name)}, {len(content)} bytes,\n"
        f" * sha256 {hashlib.sha256(content).hexdigest()}.\n"
        f" * Written by edgeprune {__version__}; don't edit. */\n"
    )
    header = folder / f"{name}_data.h"
    source = folder / f"{name}_data.c"
    save(header, _header(title, name, content, graph, arena))
    save(source, _source(title, name, content))
    return source, header


def _source(title: str, name: str, content: bytes) -> Iterator[bytes]:
    upper = name.upper()
    yield f"""{title}
#include "{name}_data.h"

#if defined(__cplusplus)
#define {upper}_ALIGNED alignas({ALIGNMENT})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {upper}_ALIGNED _Alignas({ALIGNMENT})
#elif defined(__GNUC__) || defined(__ICCARM__) || defined(__TI_COMPILER_VERSION__)
#define {upper}_ALIGNED __attribute__((aligned({ALIGNMENT})))
#else
#error "how does this compiler align an array to {ALIGNMENT} bytes? define {upper}_ALIGNED here"
#endif

{upper}_ALIGNED const unsigned char {name}_data[{upper}_DATA_SIZE] = {{
""".encode()
    stored = np.frombuffer(content, np.uint8)
    for start in range(0, len(stored), _BLOCK):
        yield _rows(stored[start : start + _BLOCK])
    yield b"};\n"


def _rows(block: Array) -> bytes:
    """Lines of 16 numbers; made by table, since a file may have many megabytes."""
    texts = _TEXTS[block]
    whole = len(block) // _ROW * _ROW
    lines = texts[:whole].reshape(-1, _ROW * texts.shape[1])
    ends = np.full((len(lines), 1), ord("\n"), np.uint8)
    rest = texts[whole:].tobytes()
    return np.concatenate([lines, ends], axis=1).tobytes() + (rest + b"\n" if rest else b"")


_TEXTS = np.array([list(b"0x%02x," % value) for value in range(256)], np.uint8)


def _header(title: str, name: str, content: bytes, graph: Graph, arena: int | None) -> str:
    upper = name.upper()
    guard = f"{upper}_DATA_H"
    kinds = sorted({_plain(op.kind) for op in graph.ops})
    parts = [
        f"{title}\n#ifndef {guard}\n#define {guard}\n",
        f"/* Length of the array in bytes. */\n#define {upper}_DATA_SIZE {len(content)}u\n",
        _HOW_ARENA + f"#define {upper}_ARENA_SIZE {arena}u\n" if arena is not None else _NO_ARENA,
        "/* Operators for MicroMutableOpResolver, by their names in the TFLite schema:\n"
        + "".join(f" *     {kind}\n" for kind in kinds)
        + f" */\n#define {upper}_OPERATORS {len(kinds)}\n",
        _edges(upper, "INPUT", graph.inputs),
        _edges(upper, "OUTPUT", graph.outputs),
        f'#ifdef __cplusplus\nextern "C" {{\n#endif\n\n'
        f"extern const unsigned char {name}_data[{upper}_DATA_SIZE];\n\n"
        f"#ifdef __cplusplus\n}}\n#endif\n",
        f"#endif /* {guard} */\n",
    ]
    return "\n".join(parts)


def _edges(upper: str, what: str, tensors: Sequence[Tensor]) -> str:
    lines = [
        f"/* {what.capitalize()}s. A SHAPE is an initializer: const int shape[] = SHAPE; a real",
        " * value is SCALE * (stored - ZERO_POINT); without them the tensor isn't quantized. */",
        f"#define {upper}_{what}S {len(tensors)}",
    ]
    for number, tensor in enumerate(tensors):
        stem = f"{upper}_{what}_{number}"
        shape = tensor.shape or (1,)
        lines += [
            f"/* {_plain(tensor.name)}, {_plain(tensor.dtype)} */",
            f"#define {stem}_RANK {len(tensor.shape)}",
            f"#define {stem}_SHAPE {{{', '.join(map(str, shape))}}}",
            f"#define {stem}_ELEMENTS {int(np.prod(shape))}u",
        ]
        if tensor.scale is not None and tensor.zero_point is not None and not tensor.per_channel:
            lines += [
                f"#define {stem}_SCALE {_float(float(tensor.scale[0]))}",
                f"#define {stem}_ZERO_POINT ({int(tensor.zero_point[0])})",
            ]
    return "\n".join(lines) + "\n"


def _float(value: float) -> str:
    """A C constant of type float that reads back as the same 32 bits."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _plain(text: str) -> str:
    """Letters that do nothing in a comment."""
    return _UNSAFE.sub("_", text)
