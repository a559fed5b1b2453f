# SPDX-License-Identifier: Apache-2.0
"""ONNX models whose weights are in files beside them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.device.local import LocalShell
from edgeprune.device.place import There
from edgeprune.device.weights import weight_files
from edgeprune.errors import InputError
from edgeprune.measure.sizes import size


def model(path: Path, beside: str | None, value: float = 1.0) -> Path:
    weight = numpy_helper.from_array(np.full((8, 8), value, np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y])
    graph.initializer.append(weight)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if beside is None:
        onnx.save(whole, path)
    else:
        (path.parent / beside).parent.mkdir(exist_ok=True)
        onnx.save(whole, path, save_as_external_data=True, location=beside, size_threshold=0)
    return path


def test_they_are_found_and_counted(tmp_path: Path) -> None:
    plain = model(tmp_path / "plain.onnx", None)
    split = model(tmp_path / "split.onnx", "w.bin")
    assert weight_files(plain) == ()
    assert weight_files(split) == (tmp_path / "w.bin",)
    assert size(plain).value == plain.stat().st_size
    assert size(split).value == split.stat().st_size + 8 * 8 * 4
    assert "weights" in size(split).origin.how


def test_they_go_to_the_device_and_away_again(tmp_path: Path) -> None:
    split = model(tmp_path / "split.onnx", "data/w.bin")
    folder = tmp_path / "there"
    place = There(LocalShell(), str(folder), keep=False)
    there = Path(place.put(split, 0, None))
    assert there.read_bytes() == split.read_bytes()
    assert (there.parent / "data/w.bin").read_bytes() == (tmp_path / "data/w.bin").read_bytes()
    place.clean()
    assert list(folder.iterdir()) == []


def test_equal_graphs_with_other_weights_are_other_models(tmp_path: Path) -> None:
    one = model(tmp_path / "a" / "m.onnx", "w.bin", 1.0)
    other = model(tmp_path / "b" / "m.onnx", "w.bin", 2.0)
    assert one.read_bytes() == other.read_bytes()
    place = There(LocalShell(), str(tmp_path / "there"), keep=False)
    assert place.put(one, 0, None) != place.put(other, 0, None)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    split = model(tmp_path / "split.onnx", "w.bin")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match=r"w\.bin: can't be read"):
        size(split)


def test_a_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        size(tmp_path)
