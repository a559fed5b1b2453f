# SPDX-License-Identifier: Apache-2.0
"""What is brought to boards, and names that can't be trusted."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.deploy.health import Health
from edgeprune.deploy.release import (
    MANIFEST,
    foreign_release,
    is_version,
    make_release,
    plain_name,
)
from edgeprune.errors import InputError
from tests.unit.deploy.boards import NAMES, release

ODD = ("a\nb", "a\\b", "a\0b", "x" * 300, "a\u2028b")
RUN = "0123456789ab" + "0" * 52


def result(folder: Path, *names: str) -> dict[str, str]:
    (folder / MANIFEST).write_text("{}")
    for name in names:
        (folder / name).write_bytes(name.encode())
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def test_a_version_is_named_by_its_run(tmp_path: Path) -> None:
    hashes = result(tmp_path, *NAMES)
    whole = make_release(RUN, tmp_path, hashes, NAMES, None)
    part = make_release(RUN, tmp_path, hashes, NAMES[:1], None)
    assert (whole.version, part.version) == ("0123456789ab", "0123456789ab-onnx")
    assert [piece.name for piece in part.pieces] == ["model.onnx", MANIFEST]
    for name in (whole.version, whole.spare, part.version, part.spare):
        assert is_version(name)
    assert whole.sums().splitlines()[0] == f"{hashes['model.onnx']}  model.onnx"


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "/etc/passwd", "..", ".", "", ".hidden", "-rf", "SHA256SUMS", *ODD],
)
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="is no plain file name"):
        make_release(RUN, tmp_path, {name: "0" * 64}, [name], None)
    if name != "SHA256SUMS":
        result(tmp_path, "m.onnx")
        with pytest.raises(InputError, match="is no plain file name"):
            make_release(
                RUN,
                tmp_path,
                {"m.onnx": hashlib.sha256(b"m.onnx").hexdigest()},
                ["m.onnx"],
                Health(file=name, inputs="", artifacts={}),
            )


@given(st.text(max_size=30))
def test_a_plain_name_has_one_line_and_no_folder(name: str) -> None:
    try:
        plain_name(name, Path("manifest.json"))
    except InputError:
        return
    assert Path(name).name == name
    assert len(f"{name}\n".splitlines()) == 1
    assert name[0] not in "-."


@pytest.mark.parametrize("run", ["", "abc", "../../../../etc", "0123456789AB", "0123456789ab/"])
def test_a_run_that_is_no_hash_is_refused(tmp_path: Path, run: str) -> None:
    hashes = result(tmp_path, "m.onnx")
    with pytest.raises(InputError, match="isn't a name in hexadecimal digits"):
        make_release(run, tmp_path, hashes, ["m.onnx"], None)


def test_files_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    hashes = result(tmp_path, "m.onnx")
    (tmp_path / "m.onnx").write_text("another")
    with pytest.raises(InputError, match=r"m\.onnx: isn't the file that manifest\.json tells of"):
        make_release(RUN, tmp_path, hashes, ["m.onnx"], None)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(InputError, match=r"m\.onnx: can't be read"):
        make_release(RUN, tmp_path, hashes, ["m.onnx"], None)


def test_without_artifacts_there_is_nothing_to_deploy(tmp_path: Path) -> None:
    result(tmp_path)
    with pytest.raises(InputError, match="has no artifact of these formats"):
        make_release(RUN, tmp_path, {}, [], None)


def test_a_folder_without_manifest_gets_one(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"one")
    (tmp_path / "net.tflite").write_bytes(b"two")
    (tmp_path / "notes.txt").write_bytes(b"three")
    with foreign_release(tmp_path, []) as both, foreign_release(tmp_path, ["onnx"]) as one:
        assert [piece.name for piece in both.artifacts] == ["net.onnx", "net.tflite"]
        assert [piece.name for piece in one.artifacts] == ["net.onnx"]
        assert one.version == f"{both.version}-onnx"
        assert both.health is None
        told = json.loads(both.pieces[-1].path.read_text())
        assert set(told["files"]) == {"net.onnx", "net.tflite"}
    assert not (tmp_path / MANIFEST).exists()
    with foreign_release(tmp_path, []) as again:
        assert again.version == both.version
    (tmp_path / "net.onnx").write_bytes(b"other")
    with foreign_release(tmp_path, []) as changed:
        assert changed.version != both.version


def test_the_support_of_these_tests_makes_a_release(tmp_path: Path) -> None:
    assert release(tmp_path, "a" * 12).bytes == sum(
        path.stat().st_size
        for path in (tmp_path / f"result-{'a' * 12}").iterdir()
        if path.name != "health.npz"
    )
