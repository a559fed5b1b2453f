# SPDX-License-Identifier: Apache-2.0
"""What isn't a model file at all."""

import hashlib
import os
import socket
import zipfile
from pathlib import Path

import pytest

from edgeprune.artifact import contents, digest, figures, read
from edgeprune.artifact.limits import FILE
from edgeprune.artifact.source import opened, shown
from edgeprune.errors import InputError
from edgeprune.export import flatbuffer
from tests.model_files import lite_cnn, lite_model, quantized, save


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert text.isprintable()
    assert shown(str(path))[:40] in text
    return text


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.onnx")


def test_a_folder(tmp_path: Path) -> None:
    assert "a folder, where a file is needed" in refusal(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "a pipe" in refusal(tmp_path / "pipe.onnx")


def test_a_device() -> None:
    assert "a device" in refusal(Path("/dev/zero"))


def test_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert "a socket" in refusal(tmp_path / "s")


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to("m.onnx")
    assert "can't be read" in refusal(tmp_path / "m.onnx")


def test_a_link_to_a_model_is_the_model(tmp_path: Path) -> None:
    save(tmp_path / "real", quantized())
    (tmp_path / "m.onnx").symlink_to("real")
    assert len(read(tmp_path / "m.onnx").graph.operators) == 8


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file: run this as a user")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", quantized())
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    assert "the file is empty" in refusal(tmp_path / "m.onnx")


def test_a_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(10**7))
    assert "a zip archive" in refusal(tmp_path / "m.pt2")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"GGUF\x03", "a GGUF file"),
        (b"just a text\n", "neither an ONNX nor a TFLite file"),
        (b"\x00" * 64, "neither an ONNX nor a TFLite file"),
        (b"TFL3", "neither an ONNX nor a TFLite file"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "m").write_bytes(content)
    assert what in refusal(tmp_path / "m")


@pytest.mark.parametrize("size", [10 * 2**30, FILE + 1])
def test_a_sparse_file_of_gigabytes_is_not_read(tmp_path: Path, size: int) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(size)
    assert f"{size} bytes" in refusal(tmp_path / "m.onnx")


@pytest.mark.parametrize("head", [b"\x08\x09\x3a", b"\x10\x00\x00\x00TFL3"])
def test_a_sparse_file_of_the_largest_size_is_refused(tmp_path: Path, head: bytes) -> None:
    with (tmp_path / "m").open("wb") as file:
        file.write(head)
        file.truncate(FILE)
    refusal(tmp_path / "m")


def test_names_of_files_are_printed_in_one_line(tmp_path: Path) -> None:
    assert "\\n" in refusal(tmp_path / "a\nb")
    refusal(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")))


def test_a_zero_byte_in_a_path() -> None:
    with pytest.raises(InputError, match="can't be read"):
        read(Path("a\0b"))


def test_large_files_are_read_in_blocks_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / "m.onnx", quantized()), tmp_path / "m.tflite"]
    paths[1].write_bytes(flatbuffer.pack(lite_model(lite_cnn())))
    whole = [figures(contents(read(path))) for path in paths]
    monkeypatch.setattr("edgeprune.artifact.source._BLOCK", 64)
    monkeypatch.setattr("edgeprune.artifact.source._BLOCKS", 2)
    monkeypatch.setattr(opened.__wrapped__, "__defaults__", (0,))
    assert [figures(contents(read(path))) for path in paths] == whole


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(bytes(2**20))
    with opened(path, whole=0) as content:
        os.truncate(path, 10)
        with pytest.raises(InputError, match="became shorter"):
            content[2**19]


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", quantized())
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="a folder"):
        digest(tmp_path)


def test_a_long_path_keeps_the_name_of_its_file() -> None:
    text = shown("/home/" + "a/" * 200 + "model.onnx")
    assert len(text) == 120
    assert text.startswith("/home/a/")
    assert text.endswith("/a/model.onnx")
    assert shown("x" * 120) == "x" * 120
