# SPDX-License-Identifier: Apache-2.0
"""Small image folders and zips for the data tests."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """An image of one colour; ``size`` is height, width."""
    stream = io.BytesIO()
    Image.new(mode, (size[1], size[0]), (value,) * 3 if mode == "RGB" else value).save(
        stream, "PNG"
    )
    return stream.getvalue()


def classes(split: str = "", per_class: int = 6) -> dict[str, bytes]:
    """Three classes; the colour tells class and number: 10 * class + number."""
    prefix = f"{split}/" if split else ""
    return {
        f"{prefix}{name}/{i}.png": png(10 * label + i)
        for label, name in enumerate(("cat", "dog", "fox"))
        for i in range(per_class)
    }


def folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
