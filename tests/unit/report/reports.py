# SPDX-License-Identifier: Apache-2.0
"""Reports made by hand: a whole one, and one of a run that could measure nothing."""

from edgeprune.figure import Figure, counted, measured
from edgeprune.gate import judge
from edgeprune.report.schema import (
    Artifact,
    Check,
    Closeness,
    DeviceReport,
    RunReport,
    StageReport,
    TensorInfo,
)
from edgeprune.target import Budgets, Device, Reach, Runtime, Target

WHERE = "A CPU, 2 cores, Linux 6.1 x86_64"
WHEN = "2026-01-02T03:04:05+00:00"

CLOSENESS = tuple(
    Closeness(reference=reference, output="output", part=part, sqnr_db=ratio, max_abs_error=0.01)
    for reference, part, ratio in (
        ("model", None, 38.5),
        ("float", None, 33.25),
        ("float", "4 to 6 of axis 1", 27.0),
        ("dense", None, 14.5),
    )
)


def taken(
    value: float, unit: str, low: float | None = None, high: float | None = None, runs: int = 500
) -> Figure:
    how = "p50 of a run; 1 thread, real inputs" if unit == "s" else "of the test set"
    return measured(value, unit, how, where=WHERE, when=WHEN, runs=runs, low=low, high=high)


def weighed(score: float | None, parameters: int, macs: int) -> dict[str, Figure]:
    figures = {
        "parameters": counted(parameters, "parameters", "values of the model"),
        "macs": counted(macs, "MACs", "of one sample"),
        "bytes": counted(4 * parameters, "B", "weights as they are stored"),
    }
    if score is not None:
        figures["score"] = taken(score, "%", score - 1, score + 1)
        figures["drop"] = taken(91.5 - score, "points", 91 - score, 92 - score)
    return figures


def profiled(milliseconds: float, size: int, factor: float | None = None) -> dict[str, Figure]:
    seconds = milliseconds * 1e-3
    figures = {
        "bytes": counted(size, "B", "size of the file"),
        "memory_peak": taken(64.5e6, "B", 64.4e6, 64.7e6, runs=3),
        "memory_model": taken(3.04e6, "B", 3.03e6, 3.04e6, runs=3),
        "load": taken(0.0048, "s", 0.0047, 0.0049, runs=5),
        "first_run": taken(0.00057, "s", 0.0005, 0.0006, runs=5),
        "latency_p50": taken(seconds, "s", 0.95 * seconds, 1.1 * seconds),
        "latency_p90": taken(1.2 * seconds, "s"),
    }
    if factor is not None:
        figures["latency_ratio"] = taken(factor, "x", 0.9 * factor, 1.1 * factor)
    return figures


def artifact(form: str, size: int, *, exact: bool = False) -> Artifact:
    return Artifact.model_validate(
        {
            "format": form,
            "file": f"model.{form}",
            "sha256": "0" * 64,
            "bytes": size,
            "numerics": "int8",
            "runtime": "onnxruntime 1.31.1" if form == "onnx" else "ai-edge-litert 2.3.0",
            "inputs": [TensorInfo(name="x", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW")],
            "outputs": [TensorInfo(name="logits", shape=(1, 10), dtype="float32")],
            "check": Check(
                samples=64,
                inputs="evaluation data",
                max_abs_error=0.0 if exact else 0.01234,
                mean_abs_error=0.0 if exact else 0.0021,
                sqnr_db=None if exact else 38.5,
                top1_agreement=None if exact else 0.984375,
                int8_ops=21,
                float_ops=1,
                op_counts={"QLinearConv": 21, "Softmax": 1},
                closeness=() if exact else CLOSENESS,
            ),
            "notes": [] if exact else ["the softmax stays in float"],
        }
    )


def target(name: str = "board", how: str = "local") -> Target:
    runtime = Runtime(name="onnxruntime", version="1.31", numerics=("int8", "fp32"))
    device = Device(title="A board", soc="S1", cpu="C1", cores=4, isa=("neon",), ram=10**9)
    reach = Reach.model_validate({"how": how})
    return Target(schema_version=1, name=name, device=device, reach=reach, onnx=runtime)


def full(device_measured: bool = True) -> RunReport:
    artifacts = (artifact("onnx", 98_600), artifact("tflite", 105_000, exact=True))
    profile = {
        "dense.onnx": profiled(0.80, 1_090_000),
        "dense.tflite": profiled(0.75, 1_095_000),
        "model.onnx": profiled(0.36, 98_600, 0.45),
        "model.tflite": profiled(0.81, 105_000, 1.3),
    }
    profile["model.onnx"]["latency_p99"] = taken(0.0007, "s", 0.0006, 0.0009)
    profile["model.onnx"] |= {"score": taken(90.6, "%", 90.0, 91.2), "drop": taken(0.9, "points")}
    figures = {a.file: profile[a.file] for a in artifacts}
    budgets = Budgets(size=100_000, latency=0.00037, memory=10**8, drop=1.0)
    return RunReport(
        model="resnet.pt2",
        target="board",
        data="cifar10",
        metric="accuracy",
        seed=7,
        stages=(
            StageReport(stage="load", seconds=1.0, figures=weighed(91.5, 272_000, 40_600_000)),
            StageReport(
                stage="prune",
                seconds=2.0,
                figures=weighed(84.25, 91_000, 14_100_000),
                notes=("conv1: kept whole, it feeds an output",),
                details={
                    "groups": [
                        {"name": "layer1", "before": 16, "after": 8, "members": 4},
                        {"name": "layer2", "before": 32, "after": 8, "members": 4},
                        {"name": "layer3", "before": 64, "after": 64, "members": 4},
                    ]
                },
            ),
            StageReport(stage="finetune", seconds=60, figures=weighed(90.9, 91_000, 14_100_000)),
            StageReport(
                stage="quantize",
                seconds=3.0,
                figures=weighed(90.7, 91_000, 14_100_000),
                details={
                    "layers": [
                        {"layer": "fc", "op": "linear", "own_db": 30.1, "total_db": 24.0},
                        {"layer": "a", "op": "conv2d", "own_db": 22.0, "total_db": 21.0},
                        {"layer": "b", "op": "conv2d", "own_db": None, "total_db": 25.0},
                    ]
                },
            ),
            StageReport(
                stage="export",
                seconds=4.0,
                figures=weighed(90.7, 91_000, 14_100_000),
                artifacts=artifacts,
            ),
            StageReport(stage="dense", seconds=3.5),
            StageReport(stage="profile", seconds=25.0),
        ),
        seconds=98.5,
        artifacts=artifacts,
        profile=profile,
        verdicts=judge(
            budgets, figures, target=target(), device=figures if device_measured else None
        ),
        not_measured=("dense.onnx: latency_p99: 50 runs a block are too few, 100 are needed",),
        machine=WHERE,
        versions={"torch": "2.13.0", "edgeprune": "0.1.0"},
    )


def reached() -> RunReport:
    """With figures of the device besides those of the machine of the run."""
    report = full(device_measured=False)
    figures = {"model.onnx": profiled(3.6, 98_600, 0.5), "model.tflite": profiled(8.1, 105_000)}
    figures["model.onnx"]["energy"] = taken(0.0123, "J")
    figures["model.tflite"]["arena"] = taken(779_000, "B", 779_000, 779_000, runs=3)
    verdicts = judge(Budgets(latency=0.005, memory=10**8), figures, target=target(), device=figures)
    device = DeviceReport(
        machine="A board, 4 cores, Linux 6.6 aarch64",
        figures=figures,
        not_measured=("model.onnx: arena: its runtime is older than 1.28",),
        notes=("model.onnx: 1 of 6 blocks were disturbed (throttled) and left out",),
    )
    return report.model_copy(update={"device": device, "verdicts": verdicts})


def bare() -> RunReport:
    """Without data, without a profile, without budgets."""
    return RunReport(
        model="net.pt2",
        target="board",
        data=None,
        metric=None,
        seed=0,
        stages=(
            StageReport(stage="load", seconds=1.0, figures=weighed(None, 950, 12_000)),
            StageReport(stage="prune", seconds=1.0, figures=weighed(None, 500, 7_000)),
        ),
        artifacts=(),
        not_measured=("accuracy: no data was given", "latency and memory: not asked for"),
        machine=WHERE,
        versions={"edgeprune": "0.1.0"},
    )
