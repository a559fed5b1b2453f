# SPDX-License-Identifier: Apache-2.0
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import images
from edgeprune.data.images import ImagePool, decode
from edgeprune.data.pool import SampleError
from edgeprune.data.spec import Preprocessing
from edgeprune.errors import DataError
from edgeprune.progress import Silent
from tests.unit.data.pictures import noise, png

PLAIN = Preprocessing()


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def test_decoding_gives_the_pixels() -> None:
    pixels = noise(0, (5, 7, 3))
    assert np.array_equal(decode(encoded(pixels), "x", PLAIN), pixels)


def test_gray_images_get_three_equal_channels_and_back() -> None:
    pixels = noise(0, (5, 7))
    colour = decode(encoded(pixels), "x", PLAIN)
    assert colour.shape == (5, 7, 3)
    assert np.array_equal(colour[:, :, 2], pixels)
    gray = decode(encoded(colour), "x", Preprocessing(grayscale=True))
    assert np.array_equal(gray, pixels[:, :, None])


def test_crop_takes_the_centre() -> None:
    pixels = noise(0, (6, 9, 3))
    found = decode(encoded(pixels), "x", Preprocessing(crop=(2, 3)))
    assert np.array_equal(found, pixels[2:4, 3:6])


@pytest.mark.parametrize(
    ("resize", "shape"), [(4, (4, 6, 3)), ((3, 5), (3, 5, 3)), (8, (8, 12, 3))]
)
def test_one_number_resizes_the_shorter_side(
    resize: int | tuple[int, int], shape: tuple[int, ...]
) -> None:
    assert decode(encoded(noise(0, (6, 9, 3))), "x", Preprocessing(resize=resize)).shape == shape


def test_resizing_is_pillows() -> None:
    pixels = noise(1, (16, 16, 3))
    wanted = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC))
    found = decode(encoded(pixels), "x", Preprocessing(resize=8, interpolation="bicubic"))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image of a known format"),
        (b"GIF89a nonsense", "can't be decoded"),
        (encoded(noise(0, (40, 40, 3)))[:-900], "can't be decoded"),
        (encoded(noise(0, (40, 40, 3)), "JPEG")[:600], "can't be decoded"),
        (encoded(noise(0, (4, 4)).astype(np.uint16) * 200), "more than 8 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
    ],
)
def test_a_corrupt_image_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(SampleError) as error:
        decode(content, "photos/a.png", PLAIN)
    assert str(error.value).startswith("photos/a.png: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PIXEL_LIMIT", 100)
    with pytest.raises(SampleError, match="11x10 pixels; at most 64 megapixels"):
        decode(png(0, (10, 11)), "x", PLAIN)


def test_an_image_smaller_than_the_crop_is_an_error() -> None:
    with pytest.raises(DataError, match=r"9x6 pixels, smaller than the crop 8x8"):
        decode(png(0, (6, 9)), "x", Preprocessing(crop=8))


def pool(contents: list[bytes], *, skip: bool) -> ImagePool:
    names = [f"{i}.png" for i in range(len(contents))]
    labels = np.arange(len(contents))
    return ImagePool(contents.__getitem__, names, "photos", labels, PLAIN, (8, 8), skip)


@pytest.mark.parametrize("keep", [True, False])
def test_a_corrupt_image_is_left_out_and_counted(keep: bool) -> None:
    found = pool([png(1), b"broken", png(3), png(4)], skip=True)
    samples = found.load(np.array([0, 1, 2, 3]), keep=keep, progress=Silent())
    (pixels,), kept = samples.take(np.arange(len(samples)))
    assert pixels[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert samples.labels is not None
    assert samples.labels[kept].tolist() == [0, 2, 3]
    assert samples.notes() == ("1 images that can't be read were left out: 1.png",)


@pytest.mark.parametrize("keep", [True, False])
def test_a_corrupt_image_stops_the_run(keep: bool) -> None:
    found = pool([png(1), b"broken"], skip=False)
    with pytest.raises(SampleError, match=r"photos/1\.png: can't be decoded"):
        found.load(np.arange(2), keep=keep, progress=Silent()).take(np.arange(2))


@pytest.mark.parametrize("skip", [True, False])
def test_images_of_other_sizes_are_an_error(skip: bool) -> None:
    found = pool([png(1), png(1, (9, 8))], skip=skip)
    with pytest.raises(DataError, match=r"1\.png: 8x9 pixels where the first image has 8x8"):
        found.load(np.arange(2), keep=True, progress=Silent())


def test_pillows_warnings_stay_inside() -> None:
    stream = io.BytesIO()
    image = Image.fromarray(noise(0, (8, 8))).convert("P")
    image.save(stream, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool([stream.getvalue()], skip=False).load(np.arange(1), keep=True, progress=Silent())
