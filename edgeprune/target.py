# SPDX-License-Identifier: Apache-2.0
"""For what: a device, its runtimes, their numerics, budgets. Data in ``targets/*.toml``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeprune.errors import ConfigError, nearest
from edgeprune.recipe import Format, Numerics
from edgeprune.shipped import by_name, folders
from edgeprune.toml import Config, load
from edgeprune.units import format_bytes, parse_bytes, parse_seconds

__all__ = [
    "Budgets",
    "Device",
    "OperatorSet",
    "Reach",
    "Runtime",
    "Target",
    "find_operators",
    "find_target",
    "hiding",
    "list_targets",
]

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Bytes = Annotated[
    int,
    Field(ge=1, lt=2**63),
    BeforeValidator(lambda v: parse_bytes(v) if isinstance(v, str) else v),
]
"""Bytes; a number, or text such as ``2MB`` or ``512KiB``."""
Seconds = Annotated[
    float, Field(gt=0), BeforeValidator(lambda v: parse_seconds(v) if isinstance(v, str) else v)
]
"""Seconds; a number, or text such as ``25ms``."""


class Device(Config):
    """Facts of the hardware."""

    title: Text
    soc: Text
    cpu: Text
    cores: Annotated[int, Field(ge=1)] | None = None
    """Absent only for ``reach.how = "local"``: the machine itself knows it."""
    isa: tuple[Text, ...] = ()
    """Instruction sets and extensions, as Linux names them in ``/proc/cpuinfo`` where there is a
    Linux. ``asimddp`` is Arm's int8 dot product."""
    ram: Bytes | None = None
    """Of the smallest variant. Absent only for ``reach.how = "local"``."""
    flash: Bytes | None = None
    """Program memory, where the model file lives in it (microcontrollers)."""
    model: Text | None = None
    """How the board names itself (the start of ``/proc/device-tree/model``). What was measured on a
    board of another name is no evidence for this target."""
    note: Text | None = None

    def may_be(self, board: str | None) -> bool:
        """Whether a machine that names itself so may be one of these."""
        return self.model is None or (board or "").startswith(self.model)


class Runtime(Config):
    """What runs one artifact format there."""

    name: Text
    version: Text
    numerics: Annotated[tuple[Numerics, ...], Field(min_length=1)]
    """Accepted, the preferred one first."""
    attention_numerics: Numerics | None = None
    """Preferred for models with attention, where it differs."""
    operators: Text | None = None
    """Name of the list in ``targets/operators`` of what it has kernels for; absent: all operators
    of the format's own set, and none of any other."""
    custom: tuple[Text, ...] = ()
    """Operators that it has beside those: ``CUSTOM:NAME`` of a TFLite file, ``DOMAIN.NAME`` of an
    ONNX file."""
    note: Text | None = None
    """What the runtime doesn't do, and what the user has to do around it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.numerics)) != len(self.numerics):
            raise ValueError("'numerics' names one twice")
        if self.attention_numerics is not None and self.attention_numerics not in self.numerics:
            raise ValueError(
                f"'attention_numerics' is '{self.attention_numerics}', which 'numerics' doesn't "
                f"accept: {', '.join(self.numerics)}"
            )
        return self


class OperatorSet(Config):
    """What a runtime has kernels for; several targets may share one."""

    schema_version: Literal[1]
    name: Text
    operators: Text
    """Names as the files have them, with white space between."""


class Budgets(Config):
    """Limits that an artifact must keep; an absent one isn't judged."""

    size: Bytes | None = None
    """Of the artifact's file."""
    latency: Seconds | None = None
    """One inference of batch 1, the median."""
    memory: Bytes | None = None
    """``Target.memory_figure``: the peak of the process that runs the artifact, on a
    microcontroller the tensor arena."""
    drop: Annotated[float, Field(ge=0, le=100)] | None = None
    """Points of accuracy, agreement or fidelity that may be lost against the dense model."""


class Reach(Config):
    """How the device is reached for measuring."""

    how: Literal["local", "ssh", "adb", "browser", "simulator", "none"]
    hint: Text | None = None
    """What a person does to measure there."""
    device: Text | None = None
    """Name or address of the one at hand (``ssh://pi@board``), where there is no ``--device``."""
    emulator: Literal["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76"] | None = None
    """QEMU's name of the CPU that stands for it in ``emulated:TARGET``; absent: there is none."""


class Target(Config):
    """One device profile."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """Small letters, digits and hyphens; equal to the file's name without ``.toml``."""
    device: Device
    reach: Reach
    onnx: Runtime | None = None
    tflite: Runtime | None = None
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX operator set of the artifact; not higher than what the runtime reads."""
    threads: Annotated[int, Field(ge=1)] = 1
    """With which the runtime is to run there."""
    channel_multiple: Annotated[int, Field(ge=1)] = 8
    """Channel counts after pruning are rounded to it, so that the kernels' lanes are full."""
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    """Type of the activations in a static int8 ONNX file."""
    budgets: Budgets = Budgets()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        device, budgets = self.device, self.budgets
        if not self.formats:
            raise ValueError("neither [onnx] nor [tflite] is there; a target needs a runtime")
        if self.reach.how != "local" and None in (device.cores, device.ram):
            raise ValueError("'device.cores' and 'device.ram' are needed unless reach is local")
        if device.cores is not None and self.threads > device.cores:
            raise ValueError(
                f"'threads' is {self.threads}, but the device has {device.cores} cores"
            )
        _fits("memory", budgets.memory, device.ram)
        _fits("size", budgets.size, device.flash)
        return self

    @property
    def formats(self) -> tuple[Format, ...]:
        """The artifact formats that the device has a runtime for."""
        both: tuple[tuple[Format, Runtime | None], ...] = (
            ("onnx", self.onnx),
            ("tflite", self.tflite),
        )
        return tuple(name for name, runtime in both if runtime is not None)

    @property
    def memory_figure(self) -> Literal["memory_peak", "memory_wasm", "arena"]:
        """What the memory budget is about: a process; a browser's WebAssembly; on a
        microcontroller, where there are no processes, the tensor arena."""
        if self.device.flash:
            return "arena"
        return "memory_wasm" if self.reach.how == "browser" else "memory_peak"

    def runtime(self, form: Format) -> Runtime:
        """The runtime of an artifact format.

        Raises:
            ConfigError: The device has none.
        """
        runtime = self.onnx if form == "onnx" else self.tflite
        if runtime is None:
            raise ConfigError(
                f"target {self.name}: no runtime for {form}; it takes {', '.join(self.formats)}"
            )
        return runtime


def _fits(budget: str, limit: int | None, there: int | None) -> None:
    if limit is not None and there is not None and limit > there:
        raise ValueError(
            f"'budgets.{budget}' is {format_bytes(limit)}, but the device has {format_bytes(there)}"
        )


def list_targets(near: Path = Path()) -> dict[str, Path]:
    """Every known target's name and file; a user's own file hides a shipped one."""
    return by_name("targets", near)


def find_operators(name: str, near: Path = Path()) -> frozenset[str]:
    """The operators of a list that targets name.

    Args:
        name: ``onnxruntime``.
        near: The folder whose ``targets/operators`` go before the shipped ones.

    Raises:
        ConfigError: There is none of that name, or its file is wrong.
    """
    known = by_name("targets/operators", near)
    if name not in known:
        raise ConfigError(
            f"no list of operators '{name}'{nearest(name, known)}; known: {', '.join(known)}"
        )
    return frozenset(load(known[name], OperatorSet).operators.split())


def hiding(name: str, near: Path = Path()) -> Path | None:
    """The user's own file that goes before the shipped target of that name, if there is one."""
    own, *shipped = folders("targets", near)
    path = own / f"{name}.toml"
    there = [folder for folder in shipped if (folder / path.name).is_file()]
    if not there or not path.is_file() or path.samefile(there[0] / path.name):
        return None
    return path


def find_target(name: str, near: Path = Path()) -> Target:
    """Load a target by name or by the path of its file (anything that ends in ``.toml``).

    Args:
        name: ``rpi4``, or ``boards/camera.toml``.
        near: The folder whose ``targets`` go before the shipped ones.

    Raises:
        ConfigError: There is none of that name, its file is wrong, or the name in the file isn't
            the file's own.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return load(path, Target)
    known = list_targets(near)
    if name not in known:
        raise ConfigError(
            f"no target '{name}'{nearest(name, known)}; known: {', '.join(known)}; "
            "a file of your own works by its path"
        )
    target = load(known[name], Target)
    if target.name != name:
        raise ConfigError(
            f"{known[name]}: key 'name' is '{target.name}'; it should be the file's own, '{name}'"
        )
    return target
