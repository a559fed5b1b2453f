# SPDX-License-Identifier: Apache-2.0
"""Projects and results of ``compress``, made by hand around tiny real files."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune.artifact import contents, digest, read
from edgeprune.figure import Figure, counted, measured
from edgeprune.report.files import to_json
from edgeprune.report.schema import Artifact, Check, DeviceReport, Manifest
from edgeprune.report.seal import seal_of, sealed
from tests.model_files import lite_cnn, lite_model
from tests.unit.profiler.models import chain

WHEN = "2026-03-04T05:06:07+00:00"
BOARD = "Raspberry Pi 4 Model B Rev 1.4, 4 cores, Linux 6.1 aarch64"

PROJECT = """\
[models.net]
out = "out/net"
targets = ["rpi4"]

[budgets.rpi4]
size = "20kB"

[baseline]
size = "+2 %"
latency = "+5 %"
memory = "+5 %"
accuracy = -0.5
"""


def timed(value: float, low: float, high: float, where: str = BOARD) -> Figure:
    return measured(
        value, "s", "median of 5 blocks", where=where, when=WHEN, runs=500, low=low, high=high
    )


def scored(value: float, how: str = "accuracy on digits") -> Figure:
    return measured(value, "%", how, where="ci", when=WHEN, runs=360, low=value - 2, high=value + 1)


def lite(path: Path) -> Path:
    from edgeprune.export import flatbuffer

    path.write_bytes(flatbuffer.pack(lite_model(lite_cnn())))
    return path


def device(**others: Any) -> DeviceReport:
    """A board on which the ONNX file keeps its limits well."""
    peak = measured(40e6, "B", "peak", where=BOARD, when=WHEN, runs=5, low=39.9e6, high=40.1e6)
    figures = {"latency_p50": timed(0.010, 0.0099, 0.0101), "memory_peak": peak}
    return DeviceReport(machine=BOARD, figures={"model.onnx": figures}, **others)


def result(
    folder: Path,
    *,
    width: int = 32,
    depth: int = 4,
    seed: int = 0,
    at: DeviceReport | None = None,
    score: float = 98.0,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """What ``compress`` writes, without torch; ``change`` edits the manifest before its seal."""
    folder.mkdir(parents=True, exist_ok=True)
    path = chain(folder / "model.onnx", width=width, depth=depth)
    if seed:
        retrain(path, seed)
    (folder / "report.json").write_text("{}\n")
    files = {each.name: digest(each) for each in (path, folder / "report.json")}
    drop = measured(0.2, "points", "paired", where="ci", when=WHEN, runs=360, low=-0.5, high=0.9)
    manifest = Manifest(
        run="0" * 64,
        target="rpi4",
        files=files,
        artifacts=(artifact(path),),
        preprocessing=None,
        figures={
            "model.onnx": {
                "bytes": counted(path.stat().st_size, "B", "size of the file"),
                "score": scored(score),
                "drop": drop,
            }
        },
        device=device() if at is None else at,
        verdicts=(),
        versions={"edgeprune": "0.1.0"},
    )
    data = json.loads(to_json(sealed(manifest)))
    change(data)
    data["seal"] = seal_of(data)
    (folder / "manifest.json").write_text(json.dumps(data, indent=2))
    return folder


def artifact(path: Path) -> Artifact:
    counts = contents(read(path)).counts
    check = Check(
        samples=8,
        inputs="random",
        max_abs_error=0.0,
        mean_abs_error=0.0,
        sqnr_db=None,
        top1_agreement=None,
        int8_ops=counts.int8,
        float_ops=counts.floating,
        op_counts=dict(counts.kinds),
    )
    return Artifact(
        format="onnx" if path.suffix == ".onnx" else "tflite",
        file=path.name,
        sha256=digest(path),
        bytes=path.stat().st_size,
        numerics="fp32",
        runtime="some runtime 1.0",
        inputs=(),
        outputs=(),
        check=check,
    )


def retrain(path: Path, seed: int) -> None:
    """Other weights of the same shapes, as training leaves them."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    generator = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        shape = numpy_helper.to_array(tensor).shape
        fresh = generator.normal(size=shape).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(fresh, tensor.name))
    onnx.save(model, path)


def git(*arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def commit(message: str) -> None:
    git("add", ".")
    git("commit", "-qm", message)
