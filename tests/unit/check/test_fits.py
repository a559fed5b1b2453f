# SPDX-License-Identifier: Apache-2.0
"""Files that a target's runtime doesn't take."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeprune.cli.main import main
from edgeprune.export import flatbuffer
from edgeprune.target import find_operators, list_targets
from tests.model_files import (
    LiteGraph,
    LiteOp,
    LiteTensor,
    lite_cnn,
    lite_model,
    onnx_model,
    quantized,
    save,
)
from tests.unit.check.test_check import by_rule, found

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lite(graph: LiteGraph) -> str:
    Path("net.tflite").write_bytes(flatbuffer.pack(lite_model(graph)))
    return "net.tflite"


def alone(op: LiteOp, side: int = 4, dtype: str = "float32") -> LiteGraph:
    tensor = LiteTensor((1, side), dtype, scale=None if dtype == "float32" else 0.1)
    return LiteGraph({"x": tensor, "y": tensor}, [op], ["x"], ["y"])


def linear(weights: str, *, stored: str | None = None, acts: str = "float32") -> LiteGraph:
    """A linear layer; ``stored`` is the type of its weights in the file, if that is another."""
    kept = stored or weights
    array = np.ones((4, 4), kept)
    scale = 0.1 if kept == "int8" else None
    act = LiteTensor((1, 4), acts, scale=None if acts == "float32" else 0.1)
    tensors = {"x": act, "w": LiteTensor((4, 4), kept, array, scale), "y": act}
    ops = [LiteOp("FULLY_CONNECTED", ["x", "w", ""], ["y"])]
    if stored is not None:
        tensors["f"] = LiteTensor((4, 4), weights)
        ops = [
            LiteOp("DEQUANTIZE", ["w"], ["f"]),
            LiteOp("FULLY_CONNECTED", ["x", "f", ""], ["y"]),
        ]
    return LiteGraph(tensors, ops, ["x"], ["y"])


@pytest.mark.parametrize(
    ("graph", "kind"),
    [
        (linear("float32"), "fp32"),
        (linear("float32", stored="float16"), "fp16"),
        (linear("float32", stored="int8"), "int8-weights"),
        (linear("int8"), "int8-dynamic"),
        (linear("int8", acts="int8"), "int8"),
        (linear("int8", acts="int16"), "int8 with int16 activations"),
        (lite_cnn(), "int8"),
        (alone(LiteOp("ABS", ["x"], ["y"])), "fp32"),
    ],
)
@pytest.mark.parametrize("target", ["coral-edgetpu", "esp32-s3", "rpi4"])
def test_numerics(
    capsys: pytest.CaptureFixture[str], graph: LiteGraph, kind: str, target: str
) -> None:
    taken = {
        "coral-edgetpu": {"int8"},
        "esp32-s3": {"int8", "fp32"},
        "rpi4": {"int8", "int8-dynamic", "fp16", "int8-weights", "fp32"},
    }[target]
    code, report = found(capsys, lite(graph), "-t", target)
    judged = by_rule(report)["target/numerics"]
    assert kind in judged["reason"]
    assert judged["outcome"] == ("pass" if kind in taken else "fail")
    assert code == (0 if kind in taken else 1)


def half() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = onnx_model([node], {"x": (1, 4)}, ["y"], {"w": np.ones((4, 4), np.float16)})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def test_numerics_of_onnx(capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("half.onnx"), half())
    save(Path("int8.onnx"), quantized())
    for name, outcome in (("half", "fail"), ("int8", "pass")):
        code, report = found(capsys, f"{name}.onnx", "-t", "stm32h7")
        assert by_rule(report)["target/numerics"]["outcome"] == outcome
        assert code == (1 if outcome == "fail" else 0)
    assert found(capsys, "half.onnx", "-t", "rpi4")[0] == 0


def test_a_format_without_a_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("int8.onnx"), quantized())
    code, report = found(capsys, "int8.onnx", "-t", "coral-edgetpu", "--allow-unmeasured")
    assert code == 1
    assert "no runtime for onnx files" in by_rule(report)["target/format"]["reason"]


def custom(name: str) -> LiteGraph:
    return alone(LiteOp("CUSTOM", ["x"], ["y"], custom=name))


@pytest.mark.parametrize(
    ("graph", "target", "outcome"),
    [
        (custom("FlexErf"), "rpi4", "fail"),
        (custom("MyOwn"), "rpi4", "fail"),
        (custom("TFLite_Detection_PostProcess"), "rpi4", "pass"),
        (custom("edgetpu-custom-op"), "rpi4", "fail"),
        (custom("edgetpu-custom-op"), "coral-edgetpu", "pass"),
        (alone(LiteOp("GELU", ["x"], ["y"])), "rpi4", "pass"),
        (alone(LiteOp("GELU", ["x"], ["y"])), "esp32-s3", "fail"),
        (alone(LiteOp("GELU", ["x"], ["y"])), "stm32h7", "fail"),
        (alone(LiteOp("LOGISTIC", ["x"], ["y"])), "stm32h7", "pass"),
    ],
)
def test_operators_of_tflite(
    capsys: pytest.CaptureFixture[str], graph: LiteGraph, target: str, outcome: str
) -> None:
    _, report = found(capsys, lite(graph), "-t", target)
    judged = by_rule(report)["target/operators"]
    assert judged["outcome"] == outcome
    if outcome == "fail":
        code = graph.ops[0].custom or graph.ops[0].kind
        assert code in judged["reason"]
        assert found(capsys, "net.tflite", "-t", target, "--allow-unmeasured")[0] == 1


@pytest.mark.parametrize(
    ("kind", "domain", "target", "outcome"),
    [
        ("Relu", "", "rpi4", "pass"),
        ("Gelu", "com.microsoft", "rpi4", "pass"),
        ("Gelu", "com.microsoft", "stm32h7", "fail"),
        ("Frobnicate", "", "rpi4", "fail"),
        ("Frobnicate", "com.microsoft", "rpi4", "fail"),
        ("Gelu", "my.own", "rpi4", "fail"),
        ("Scaler", "ai.onnx.ml", "rpi4", "pass"),
    ],
)
def test_operators_of_onnx(
    capsys: pytest.CaptureFixture[str], kind: str, domain: str, target: str, outcome: str
) -> None:
    node = helper.make_node(kind, ["x"], ["y"], domain=domain)
    model = onnx_model([node], {"x": (1, 4)}, ["y"])
    if domain not in ("", "com.microsoft"):
        model.opset_import.append(helper.make_opsetid(domain, 1))
    save(Path("net.onnx"), model)
    _, report = found(capsys, "net.onnx", "-t", target)
    assert by_rule(report)["target/operators"]["outcome"] == outcome


def test_a_function_of_the_file_needs_no_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    def calling(inner: str) -> None:
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        body = [helper.make_node(inner, ["v"], ["w"])]
        function = helper.make_function("my.own", "Twice", ["v"], ["w"], body, opsets)
        node = helper.make_node("Twice", ["x"], ["y"], domain="my.own")
        save(Path("net.onnx"), onnx_model([node], {"x": (1, 4)}, ["y"], functions=[function]))

    calling("Relu")
    assert found(capsys, "net.onnx", "-t", "rpi4")[0] == 0
    calling("Frobnicate")
    assert found(capsys, "net.onnx", "-t", "rpi4")[0] == 1


def test_a_build_of_ones_own_has_operators_of_its_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "targets/rpi4.toml").read_text().replace('name = "rpi4"', 'name = "mine"')
    own = text.replace('operators = "litert"', 'operators = "litert"\ncustom = ["CUSTOM:MyOwn"]')
    (here / "mine.toml").write_text(own)
    assert found(capsys, lite(custom("MyOwn")), "-t", "mine.toml")[0] == 0
    unlisted = text.replace('operators = "litert"\n', "")
    (here / "mine.toml").write_text(unlisted)
    assert found(capsys, "net.tflite", "-t", "mine.toml")[0] == 1
    (here / "mine.toml").write_text(text.replace('"litert"', '"litret"'))
    assert main(["check", "net.tflite", "-t", "mine.toml"]) == 2
    assert "no list of operators 'litret'; did you mean 'litert'?" in capsys.readouterr().err


def test_an_arena_that_cannot_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = alone(LiteOp("LOGISTIC", ["x"], ["y"]), side=2_700_000, dtype="int8")
    code, report = found(capsys, lite(graph), "-t", "stm32h7")
    memory = by_rule(report)["target/memory"]
    assert code == 1
    assert memory["outcome"] == "fail"
    assert "activations take 5.4 MB" in memory["reason"]
    assert memory["limit"] == 512 * 1024
    small = alone(LiteOp("LOGISTIC", ["x"], ["y"]), side=4, dtype="int8")
    assert found(capsys, lite(small), "-t", "stm32h7")[0] == 0
    # a board with a gigabyte holds it
    code, report = found(capsys, lite(graph), "-t", "rpi4")
    assert by_rule(report)["target/memory"]["limit"] == 2**30
    assert code == 0


def test_lists_are_shipped_and_named_by_targets() -> None:
    assert "CONV_2D" in find_operators("tflm")
    assert "GELU" not in find_operators("tflm")
    texts = [path.read_text() for path in list_targets().values()]
    for path in (ROOT / "targets/operators").glob("*.toml"):
        assert any(f'operators = "{path.stem}"' in text for text in texts)


def test_strict_fails_what_the_target_asks_and_a_file_does_not_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def open_of(report: dict[str, Any]) -> set[str]:
        return {e["rule"] for e in report["judged"] if e["outcome"] == "not measured"}

    lite(lite_cnn())
    assert found(capsys, "net.tflite", "-t", "rpi4")[0] == 0
    code, report = found(capsys, "net.tflite", "-t", "rpi4", "--strict")
    assert code == 1
    assert open_of(report) == {"budget/latency", "budget/memory", "budget/drop"}
    # no device is needed for the drop
    options = ("--strict", "--allow-unmeasured")
    assert found(capsys, "net.tflite", "-t", "rpi4", *options)[0] == 1
    assert found(capsys, "net.tflite", "--max-drop", "1", "--allow-unmeasured")[0] == 1
    assert found(capsys, "net.tflite", "--max-latency", "1ms", "--allow-unmeasured")[0] == 0
