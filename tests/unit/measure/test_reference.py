# SPDX-License-Identifier: Apache-2.0
"""The reference models, and latencies over theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from bench import reference_models
from edgeprune.device.address import parse_address
from edgeprune.device.settings import Entry, Named, Places
from edgeprune.errors import InputError
from edgeprune.measure import reference
from edgeprune.measure.growth import judge_growth
from edgeprune.measure.profile import Reached, here
from edgeprune.measure.reference import measure_reference, reference_model
from edgeprune.measure.result import Conditions
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.runtime import open_session
from tests.unit.profiler import models

OLDEST = 17
ONCE = Conditions()


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_the_reference_is_what_its_script_writes(form: str) -> None:
    written = {"onnx": reference_models.write_onnx, "tflite": reference_models.write_tflite}[form]()
    assert reference_model(form).read_bytes() == written
    assert detect_format(reference_model(form)) == form


def test_both_references_are_the_same_network() -> None:
    x = np.random.default_rng(0).normal(size=(1, 48, 48, 3)).astype("float32")
    one = open_session(reference_model("tflite")).run([x])[0]
    other = open_session(reference_model("onnx")).run([np.ascontiguousarray(np.moveaxis(x, 3, 1))])
    np.testing.assert_allclose(other[0], one, rtol=1e-4, atol=1e-4)
    assert np.abs(one).max() < 1e3
    assert np.abs(one).min() > 1e-6  # nothing died, nothing is denormal


def test_old_runtimes_read_the_references() -> None:
    model = onnx.load(reference_model("onnx"))
    assert {entry.domain: entry.version for entry in model.opset_import}[""] <= OLDEST
    assert model.ir_version <= 8
    data = bytearray(reference_model("tflite").read_bytes())
    codes = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0)).operatorCodes
    assert {code.version for code in codes} == {1}


def test_files_of_both_formats_against_their_references(tmp_path: Path) -> None:
    large = models.chain(tmp_path / "l.onnx", width=512, depth=40)
    lite = models.sums(tmp_path / "m.tflite", ["y"])
    files = {"l.onnx": large, "m.tflite": lite}
    found = measure_reference(files, ONCE, here(), precision=0.5)
    assert found.not_measured == ()
    assert found.figures["l.onnx"].value > 1 > found.figures["m.tflite"].value
    for figure in found.figures.values():
        assert figure.unit == "x"
        assert figure.origin.where == found.machine
        assert "CPU time" in figure.origin.how
        assert judge_growth(figure, figure, 10.0).outcome == "pass"
    assert found.fingerprints["l.onnx"] != found.fingerprints["m.tflite"]


def test_the_time_limit_leaves_a_file_out_and_says_so(tmp_path: Path) -> None:
    file = models.endless(tmp_path / "e.onnx")
    found = measure_reference({"e.onnx": file}, ONCE, here(), time_limit=2)
    assert found.figures == found.fingerprints == {}
    assert len(found.not_measured) == 1
    assert "e.onnx: latency_reference: 0 processes were done" in found.not_measured[0]


def test_a_file_that_is_neither_format_is_refused_before_anything_runs(tmp_path: Path) -> None:
    text = tmp_path / "readme.onnx"
    text.write_text("no model")
    with pytest.raises(InputError, match=r"readme\.onnx.*neither"):
        measure_reference({"a": text}, ONCE, here())
    with pytest.raises(InputError, match=r"gone\.onnx.*read"):
        measure_reference({"a": tmp_path / "gone.onnx"}, ONCE, here())


@pytest.mark.parametrize("text", ["adb:123", "web:node", "tflm", "emulated:rpi4"])
def test_devices_without_an_agent_of_their_own_are_refused(tmp_path: Path, text: str) -> None:
    named = Named("thing", parse_address(text), Entry(address=text))
    file = models.chain(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"'thing'.*local and ssh"):
        measure_reference({"a": file}, ONCE, Reached(named, Places(tmp_path, tmp_path)))


class Emulated:
    """An agent on a board that is emulated; it is never asked to compare."""

    def probe(self) -> dict[str, Any]:
        facts = dict.fromkeys(["board", "cpu", "governor", "os", "kernel"])
        return {**facts, "cores": 4, "machine": "aarch64", "emulated": "qemu-user"}

    def close(self) -> None:
        return None


def test_an_emulated_machine_has_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "open_agent", lambda *_: Emulated())
    file = models.chain(tmp_path / "a.onnx")
    found = measure_reference({"a": file}, ONCE, here())
    assert found.figures == {}
    assert "emulated by qemu-user" in found.not_measured[0]


def test_what_makes_latencies_incomparable_changes_the_fingerprint() -> None:
    keys = ("board", "cpu", "cores", "isa", "kernel", "machine", "governor")
    facts = dict.fromkeys(keys, "a")
    seen = {
        reference._fingerprint({**facts, **changed}, runtime, threads)
        for changed in ({}, *({key: "b"} for key in keys))
        for runtime in ("r 1", "r 2")
        for threads in (1, 2)
    }
    assert len(seen) == 8 * 4
    assert reference._fingerprint({**facts, "time": 3}, "r 1", 1) in seen
