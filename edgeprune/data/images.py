# SPDX-License-Identifier: Apache-2.0
"""Image files: decoding with Pillow, kept in memory where they fit, else decoded when taken."""

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.data.fitting import takes_integers
from edgeprune.data.pool import Rows, SampleError, watched
from edgeprune.data.spec import DataSpec, Preprocessing, pair
from edgeprune.errors import DataError, MissingExtra
from edgeprune.model import Wanted
from edgeprune.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImagePool",
    "ImageSamples",
    "decode",
    "first_size",
    "image_preprocessing",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB values in 0..1: the constants that torchvision's models are trained with."""
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_PIXEL_LIMIT = 64_000_000
"""Of one image; a header that declares more is taken for a decompression bomb."""
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "compress") from None
    return Image


@contextmanager
def _quiet() -> Iterator[None]:
    # Pillow warns of broken EXIF, palettes and large sizes; what matters is raised below.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        yield


def decode(raw: bytes, name: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode, resize and crop one image: ``[height, width, channels]``, 8 bits a value.

    Orientation tags are ignored, as training pipelines do.

    Raises:
        SampleError: It is no image, broken, has more than 8 bits a value or 64 megapixels.
        DataError: It is smaller than the crop.
    """
    module = _pillow()
    try:
        with module.open(io.BytesIO(raw), formats=_FORMATS) as image:
            if image.width * image.height > _PIXEL_LIMIT:
                raise SampleError(
                    f"{name}: {image.width}x{image.height} pixels; at most 64 megapixels are read"
                )
            if image.mode in _DEEP_MODES:
                raise SampleError(f"{name}: more than 8 bits a value; convert it to 8 bits")
            ready = image.convert("L" if preprocessing.grayscale else "RGB")
    except SampleError:
        raise
    except Exception as error:  # hostile bytes raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "cannot identify image" in reason:
            reason = "no image of a known format"
        raise SampleError(f"{name}: can't be decoded: {reason}") from None
    pixels = np.asarray(_fit(ready, name, preprocessing, module))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _fit(image: "Image", name: str, preprocessing: Preprocessing, module: ModuleType) -> "Image":
    if preprocessing.resize is not None:
        width, height = _resized(image.width, image.height, preprocessing.resize)
        if (width, height) != image.size:
            method = module.Resampling[preprocessing.interpolation.upper()]
            image = image.resize((width, height), method)
    if preprocessing.crop is None:
        return image
    height, width = pair(preprocessing.crop)
    if image.height < height or image.width < width:
        raise DataError(
            f"{name}: {image.width}x{image.height} pixels, smaller than the crop "
            f"{width}x{height}; set preprocessing.resize"
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _resized(width: int, height: int, size: int | tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, int):
        return size[1], size[0]
    if width <= height:
        return size, max(size, int(size * height / width))
    return max(size, int(size * width / height)), size


def image_preprocessing(
    spec: DataSpec, wanted: Sequence[Wanted]
) -> tuple[Preprocessing, tuple[str, ...]]:
    """What the spec says; else what the model's ``[N, C, H, W]`` asks for.

    Values are then scaled and normalised with ImageNet's constants, unless the model takes
    integers: those are given the bytes. The second value says in words what was chosen here.
    """
    if spec.preprocessing is not None:
        return spec.preprocessing, ()
    shape, raw = _size_of(wanted), takes_integers(wanted[0] if wanted else None)
    gray = shape is not None and shape[1] == 1
    chosen = Preprocessing(
        resize=max(shape[2:]) if shape else None,
        crop=(shape[2], shape[3]) if shape else None,
        grayscale=gray,
        mean=() if gray or raw else IMAGENET_MEAN,
        std=() if gray or raw else IMAGENET_STD,
    )
    values = "values scaled to 0..1" + ("" if gray else ", ImageNet mean and std")
    if raw:
        values = "bytes 0 to 255, since the model takes integers"
    sizes = (
        f"shorter side {max(shape[2:])}, centre {shape[2]}x{shape[3]}" if shape else "as they are"
    )
    return chosen, (f"preprocessing was chosen, no spec gave it: {values}; sizes: {sizes}",)


def _size_of(wanted: Sequence[Wanted]) -> tuple[int, ...] | None:
    """The model's first input as ``[N, C, H, W]``, where that is known."""
    if not wanted or len(wanted[0].shape) != 4:
        return None
    sizes = [size for size in wanted[0].shape[1:] if size is not None]
    return (1, *sizes) if len(sizes) == 3 else None


def first_size(
    read: Callable[[int], bytes], names: Iterable[str], preprocessing: Preprocessing, skip: bool
) -> tuple[int, int]:
    """``(height, width)`` of the first image that can be read, once prepared.

    ``names`` are as messages shall have them, in the order that ``read`` counts in.

    Raises:
        DataError: The first can't be read, or with ``skip`` none can.
    """
    broken: SampleError | None = None
    with _quiet():
        for i, name in enumerate(names):
            try:
                pixels = decode(read(i), name, preprocessing)
            except SampleError as error:
                if not skip:
                    raise
                broken = broken or error
                continue
            return pixels.shape[0], pixels.shape[1]
    raise DataError(f"no image can be read; the first: {broken}")


@dataclass(frozen=True)
class ImagePool:
    """Encoded images of one split: ``read(i)`` gives the bytes of image ``i``."""

    read: Callable[[int], bytes]
    names: Sequence[str]
    where: str
    """The source, put before a name in messages."""
    labels: Rows | None
    preprocessing: Preprocessing
    size: tuple[int, int]
    """Height and width of every image, once prepared."""
    skip: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a decoded image."""
        return (*self.size, 1 if self.preprocessing.grayscale else 3)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one decoded image."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Count of images."""
        return len(self.names)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Decode image ``row``: ``[height, width, channels]``.

        Raises:
            SampleError: It can't be read.
            DataError: It has another size than the first one.
        """
        name = f"{self.where}/{self.names[row]}"
        found = decode(self.read(row), name, self.preprocessing)
        if found.shape[:2] != self.size:
            height, width = self.size
            raise DataError(
                f"{name}: {found.shape[1]}x{found.shape[0]} pixels where the first image "
                f"has {width}x{height}; set preprocessing.resize in a spec, or --input-shape"
            )
        return found

    def load(self, rows: Rows, *, keep: bool, progress: Progress) -> "ImageSamples":
        """Decode ``rows`` into memory (``keep``), or when they are taken."""
        labels = None if self.labels is None else self.labels[rows]
        if not keep:
            return ImageSamples(self, rows, labels, None)
        pixels = np.empty((len(rows), *self.shape), np.uint8)
        samples = ImageSamples(self, rows, labels, pixels)
        good = np.zeros(len(rows), np.bool_)
        with _quiet():
            for i, row in enumerate(watched(rows.tolist(), "reading images", progress)):
                good[i] = samples.fill(pixels, i, row)
        if good.all():
            return samples
        kept = None if labels is None else labels[good]
        return ImageSamples(self, rows[good], kept, pixels[good], samples.broken)


@dataclass(frozen=True)
class ImageSamples:
    """Chosen images, decoded already or on demand; stored as ``[N, height, width, channels]``."""

    pool: ImagePool
    rows: Rows
    """Of the pool."""
    labels: Rows | None
    decoded: NDArray[np.uint8] | None
    broken: set[str] = field(default_factory=set)
    """Names of the images that were left out."""

    def __len__(self) -> int:
        """Count of images."""
        return len(self.rows)

    def fill(self, pixels: NDArray[np.uint8], place: int, row: int) -> bool:
        """Decode image ``row`` of the pool into ``pixels[place]``; ``False`` if it was left out."""
        try:
            pixels[place] = self.pool.pixels(row)
        except SampleError:
            if not self.pool.skip:
                raise
            self.broken.add(self.pool.names[row])
            return False
        return True

    def take(self, rows: Rows) -> tuple[tuple[Tensor, ...], Rows]:
        """Images of ``rows`` as ``uint8``, and the rows that could be read."""
        if self.decoded is not None:
            return (torch.from_numpy(self.decoded[rows]),), rows
        pixels = np.empty((len(rows), *self.pool.shape), np.uint8)
        with _quiet():
            good = np.array(
                [self.fill(pixels, i, row) for i, row in enumerate(self.rows[rows].tolist())],
                np.bool_,
            )
        return (torch.from_numpy(pixels[good]),), rows[good]

    def notes(self) -> tuple[str, ...]:
        """The images that were left out so far."""
        if not self.broken:
            return ()
        some = ", ".join(sorted(self.broken)[:3])
        return (f"{len(self.broken)} images that can't be read were left out: {some}",)
