# SPDX-License-Identifier: Apache-2.0
"""What a run can show: figures of its artifacts, the report, the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from edgeprune import health
from edgeprune.data import Data
from edgeprune.deploy.health import Health
from edgeprune.export import artifact_runner
from edgeprune.export.c_array import write_c_array
from edgeprune.figure import Figure, counted
from edgeprune.gate import judge
from edgeprune.inputs import watch
from edgeprune.job import Job
from edgeprune.measure.profile import Reached, here, profile
from edgeprune.measure.result import Conditions, Profile
from edgeprune.profiler.machine import describe, versions
from edgeprune.report import markdown, to_json
from edgeprune.report.schema import DeviceReport, Manifest, RunReport, StageReport
from edgeprune.report.seal import sealed
from edgeprune.step import Run, Step
from edgeprune.workspace import file_hash

__all__ = ["Measured", "measure", "result_files", "run_report"]


_BESIDE = ("dense", "profile", "evaluate", "judge")
"""Parts of a run that make no model."""


@dataclass(frozen=True)
class Measured:
    """What was measured of the artifacts, and where."""

    host: Profile
    """On the machine of the run."""
    device: Profile | None
    """On the target's device, where one was reached."""


def measure(job: Job, run: Run, yardstick: Step, final: Step) -> Measured:
    """Figures of the final artifacts and of the dense float ones, measured interleaved.

    The final ones are also scored, by running them over the evaluation data.

    Raises:
        InputError: A runtime refuses a file.
        CheckFailed: A file answers NaN or infinity to evaluation samples.
        DeviceError: A measuring process died.
    """
    dense = {f"dense{path.suffix}": path for path in yardstick.files().values()}
    files = dense | final.files()
    inputs = _sample(run) if job.profile else None
    found = _profile(job, run, files, here(), inputs) if job.profile else _sizes(files)
    device = None
    if job.profile and job.device is not None:
        device = _profile(job, run, files, job.device, inputs)
    run.clock.lap("profile")
    if run.judge is not None and run.context.data is not None:
        for artifact in final.report.artifacts:
            run.context.progress.say(f"> evaluate {artifact.file}")
            execute = artifact_runner(files[artifact.file], final.model, job.threads)
            execute = watch(execute, final.model, run.context.data, artifact.file)
            found.figures[artifact.file].update(run.judge.figures(execute))
    if run.context.mask is not None:
        for name, path in files.items():
            found.figures[name]["zipped"] = _zipped(path)
    run.clock.lap("evaluate")
    return Measured(found, device)


def _zipped(path: Path) -> Figure:
    """What a file takes where it is compressed: zeros are worth something there."""
    archive = BytesIO()
    with ZipFile(archive, "w", ZIP_DEFLATED, compresslevel=9) as zipped:
        zipped.write(path, path.name)
    return counted(len(archive.getbuffer()), "B", "size in a zip archive (deflate, level 9)")


def run_report(job: Job, run: Run, steps: Sequence[Step], found: Measured) -> RunReport:
    """All that the run found out, with a verdict for each budget."""
    data = run.context.data
    artifacts = steps[-1].report.artifacts
    host = found.host
    figures = {artifact.file: host.figures[artifact.file] for artifact in artifacts}
    there = _evidence(job, found)
    return RunReport(
        model=job.source.path.name,
        target=job.target.name,
        data=None if data is None else data.name,
        metric=None if run.judge is None else run.judge.metric,
        seed=job.recipe.seed,
        stages=_stages(run, steps),
        seconds=run.clock.total,
        artifacts=artifacts,
        missing=steps[-1].report.missing,
        profile=host.figures,
        device=_device_report(found.device),
        verdicts=judge(
            job.target.budgets,
            figures,
            target=job.target,
            device=there,
            losses=_losses(steps, figures),
        ),
        not_measured=(*_not_measured(job, run), *host.not_measured),
        machine=host.machine,
        versions=versions(),
    )


def _losses(
    steps: Sequence[Step], figures: Mapping[str, Mapping[str, Figure]]
) -> dict[str, dict[str, float]]:
    """By artifact, the points lost by pruning with its fine-tuning, by quantization, by export."""
    drops = [0.0]
    for step in steps:  # one that changed nothing isn't evaluated again
        drop = step.report.figures.get("drop")
        drops.append(drops[-1] if drop is None else drop.value)
    *_, tuned, small, _ = drops
    return {
        file: {
            "pruning": tuned,
            "quantization": small - tuned,
            "export": known["drop"].value - small,
        }
        for file, known in figures.items()
        if "drop" in known
    }


def record_health(run: Run, final: Step) -> Health:
    """What each artifact answers to one batch, written to the work folder too."""
    return health.record(
        final.report.artifacts,
        final.files(),
        final.model,
        run.work.folder / health.FILE,
        data=run.context.data,
        seed=run.context.seed,
        threads=run.context.threads,
    )


def result_files(
    report: RunReport, run: Run, final: Step, recorded: Health
) -> dict[str, Path | str]:
    """The files of a result, by name: a file to copy, or a text to write."""
    files = final.files() | {"model.pt2": final.folder / "model.pt2"}
    texts = {"report.json": to_json(report), "report.md": markdown(report)}
    data = run.context.data
    files[health.FILE] = run.work.folder / health.FILE
    files |= _firmware(report, run, files)
    hashes = {name: file_hash(path) for name, path in files.items()}
    hashes |= {name: sha256(text.encode()).hexdigest() for name, text in texts.items()}
    manifest = Manifest(
        run=run.work.key,
        target=report.target,
        files=hashes,
        artifacts=report.artifacts,
        missing=report.missing,
        preprocessing=None if data is None else data.preprocessing,
        figures=report.profile,
        device=report.device,
        verdicts=report.verdicts,
        versions=report.versions,
        health=recorded,
    )
    return files | texts | {"manifest.json": to_json(sealed(manifest))}


def _firmware(report: RunReport, run: Run, files: Mapping[str, Path]) -> dict[str, Path]:
    """What a microcontroller's program is built with: the file as a C array, and its arena."""
    if not run.context.target.device.flash or "model.tflite" not in files:
        return {}
    there = {} if report.device is None else report.device.figures.get("model.tflite", {})
    arena = int(there["arena"].value) if "arena" in there else None
    written = write_c_array(files["model.tflite"], run.work.folder, arena=arena)
    return {path.name: path for path in written}


def _evidence(job: Job, found: Measured) -> dict[str, dict[str, Figure]] | None:
    """The figures by which the target's own budgets are judged."""
    device = found.device
    if device is not None:
        return device.figures if device.refused is None else None
    return found.host.figures if job.profile and job.target.reach.how == "local" else None


def _device_report(device: Profile | None) -> DeviceReport | None:
    if device is None:
        return None
    return DeviceReport(
        machine=device.machine,
        figures=device.figures,
        not_measured=device.not_measured,
        notes=device.notes,
        refused=device.refused,
    )


def _sample(run: Run) -> Path | None:
    """One evaluation sample as an ``.npz``, where there is data."""
    if run.context.data is None:
        return None
    path = (run.work.folder / "inputs.npz").absolute()
    sample = next(run.context.data.evaluation(1)).inputs
    np.savez(path, *(tensor.numpy() for tensor in sample))
    return path


def _profile(
    job: Job, run: Run, files: Mapping[str, Path], at: Reached, inputs: Path | None
) -> Profile:
    """Measure on a device; ``None`` for ``inputs`` is random ones."""
    run.context.progress.say(f"> profile on {at.named.name}")
    local = at.named.address.kind == "local"
    threads = min(job.target.threads, job.threads) if local else job.target.threads
    return profile(
        {name: path.absolute() for name, path in files.items()},
        job.recipe.profile,
        Conditions(threads, job.recipe.seed, inputs),
        at,
        target=job.target,
        progress=run.context.progress,
    )


def _sizes(files: Mapping[str, Path]) -> Profile:
    """All that is known of files that nobody profiles: their bytes."""
    figures = {
        name: {"bytes": counted(path.stat().st_size, "B", "size of the file")}
        for name, path in files.items()
    }
    return Profile(figures, ("latency and memory: --no-profile was given",), (), describe())


def _stages(run: Run, steps: Sequence[Step]) -> tuple[StageReport, ...]:
    """The stages that made the result, then what else took time."""
    rest = dict(run.clock.parts)
    stages = []
    for step in steps:
        report = _noted(step, run.context.data)
        part = report.stage if report.stage == "load" else step.folder.name
        stages.append(report.model_copy(update={"seconds": rest.pop(part)}))
    for part, took in rest.items():
        name = part if part in _BESIDE else f"{part}, not kept"  # other numerics were tried
        stages.append(StageReport(stage=name, seconds=took))
    return tuple(stages)


def _noted(step: Step, data: Data | None) -> StageReport:
    """The step's report; what was left out of the data is known in full only now."""
    if step.report.stage != "load" or data is None:
        return step.report
    return step.report.model_copy(update={"notes": (*step.report.notes, *data.notes)})


def _not_measured(job: Job, run: Run) -> tuple[str, ...]:
    missing = []
    if run.judge is None or run.context.data is None:
        missing.append("accuracy: no data was given (--data), so nothing was evaluated or tuned")
    elif run.judge.metric != "accuracy":
        why = "; ".join(run.judge.task.notes) or "there are no labels"
        missing.append(f"accuracy: {why}; {run.judge.metric} is given")
    if job.data is not None and job.data.limit is not None:
        missing.append(f"the whole data: --limit {job.data.limit} samples of each part")
    if job.target.reach.how != "local" and job.device is None:
        missing.append(f"latency and memory on {job.target.name}: it wasn't at hand")
    return tuple(missing)
