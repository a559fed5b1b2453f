# SPDX-License-Identifier: Apache-2.0
"""Broken files out of whole ones, and what must come of them: an answer, or one line of error.

Run as a program (``python -m tests.fuzz.mutate onnx 60``) it breaks files for so many seconds, with
the memory of the process limited, and ends with 0 if none did harm. The same seed breaks the same
way; an input that does harm is written to the working folder.
"""

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from edgeprune.artifact import contents, figures, read
from edgeprune.errors import InputError
from edgeprune.export import flatbuffer
from tests.fuzz.loop import Limits, run
from tests.fuzz.rearrange import rearranged
from tests.model_files import control, lite_branches, lite_cnn, lite_model, quantized

__all__ = ["broken", "judge", "seeds"]

_LIMITS = Limits(seconds=30, addresses=3 * 2**30)
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


def seeds(form: str) -> list[bytes]:
    """Small whole files of a format."""
    if form == "tflite":
        return [
            flatbuffer.pack(lite_model(lite_cnn())),
            flatbuffer.pack(lite_model(*lite_branches())),
        ]
    return [model.SerializeToString() for model in (quantized(), control())]


def broken(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """``content`` with a few things wrong."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(7):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + 1] = bytes([(data[at] if data else 0) ^ (1 << chance.randrange(8))])
            case 2:
                del data[at:]
            case 3:
                del data[at : at + chance.randrange(1, 16)]
            case 4:
                start = chance.randrange(len(other))
                data[at:at] = other[start : start + chance.randrange(1, 64)]
            case 5:  # a length or an offset
                form = chance.choice("BHIQ")
                width = struct.calcsize(form)
                number = chance.choice(_EXTREMES) & (2 ** (8 * width) - 1)
                data[at : at + width] = struct.pack("<" + form, number)
            case _:  # a part twice
                data[at:at] = data[at : at + chance.randrange(1, 64)]
    return bytes(data)


def judge(content: bytes, path: Path) -> str:
    """Read a file with that content: ``read``, or ``refused`` with one printable line.

    Anything else is an error of the reader, and goes through.
    """
    path.write_bytes(content)
    try:
        artifact = read(path)
        figures(contents(artifact))
    except InputError as error:
        text = str(error)
        assert text.isprintable(), repr(text)
        assert len(text) < 1000
        return "refused"
    return "read"


def _made(form: str) -> Callable[[random.Random], bytes]:
    whole = seeds(form)

    def make(chance: random.Random) -> bytes:
        content = rearranged(form, chance) if chance.random() < 0.5 else chance.choice(whole)
        if content in whole or chance.random() < 0.2:
            content = broken(content, chance.choice(whole), chance)
        return content

    return make


if __name__ == "__main__":
    form, seconds = sys.argv[1], float(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    sys.exit(run(form, seconds, seed, seeds(form), _made(form), judge, _LIMITS))
