# SPDX-License-Identifier: Apache-2.0
"""For what: a device, its runtimes, the numerics they accept, budgets. Data in ``targets/*.toml``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeprune.errors import ConfigError, nearest
from edgeprune.recipe import Format, Numerics
from edgeprune.toml import Config, load
from edgeprune.units import parse_bytes, parse_seconds

__all__ = ["Budgets", "Device", "Reach", "Runtime", "Target", "find_target", "list_targets"]

Bytes = Annotated[int, BeforeValidator(lambda v: parse_bytes(v) if isinstance(v, str) else v)]
Seconds = Annotated[float, BeforeValidator(lambda v: parse_seconds(v) if isinstance(v, str) else v)]


class Device(Config):
    """Facts of the hardware."""

    title: str
    soc: str
    cpu: str
    cores: Annotated[int, Field(ge=1)]
    isa: tuple[str, ...]
    ram: Bytes
    flash: Bytes | None = None
    """Program memory, where the model file lives in it (microcontrollers)."""


class Runtime(Config):
    """What runs one artifact format there."""

    name: str
    version: str
    numerics: Annotated[tuple[Numerics, ...], Field(min_length=1)]
    """Accepted, the preferred one first."""
    attention_numerics: Numerics | None = None
    """Preferred for models with attention, where it differs."""
    note: str | None = None


class Budgets(Config):
    """Limits that an artifact must keep; an absent one isn't judged."""

    size: Bytes | None = None
    latency: Seconds | None = None
    memory: Bytes | None = None
    drop: Annotated[float, Field(ge=0)] | None = None
    """Points of accuracy (or agreement) that may be lost against the dense model."""


class Reach(Config):
    """How the device is reached for measuring."""

    how: Literal["local", "ssh", "adb", "browser", "simulator", "none"]
    hint: str | None = None


class Target(Config):
    """One device profile."""

    schema_version: Literal[1]
    name: str
    device: Device
    reach: Reach
    onnx: Runtime | None = None
    tflite: Runtime | None = None
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    threads: Annotated[int, Field(ge=1)] = 1
    channel_multiple: Annotated[int, Field(ge=1)] = 8
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    budgets: Budgets = Budgets()

    @property
    def formats(self) -> tuple[Format, ...]:
        """The artifact formats that the device has a runtime for."""
        both: tuple[tuple[Format, Runtime | None], ...] = (
            ("onnx", self.onnx),
            ("tflite", self.tflite),
        )
        return tuple(name for name, runtime in both if runtime is not None)

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


def target_folders() -> tuple[Path, ...]:
    """Where targets are looked for, in order: ``./targets``, beside the package, inside it."""
    package = Path(__file__).parent
    return (Path("targets"), package.parent / "targets", package / "_data" / "targets")


def list_targets() -> dict[str, Path]:
    """Every known target's name and file; a user's own file hides a shipped one."""
    found: dict[str, Path] = {}
    for folder in target_folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_target(name: str) -> Target:
    """Load a target by name or by the path of its file.

    Raises:
        ConfigError: There is none of that name, or its file is wrong.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = list_targets()
        if name not in known:
            raise ConfigError(
                f"no target '{name}'{nearest(name, known)}; known: {', '.join(known)}; "
                "a file of your own works by its path"
            )
        path = known[name]
    target = load(path, Target)
    if not target.formats:
        raise ConfigError(f"{path}: neither [onnx] nor [tflite] is there; a target needs a runtime")
    return target
