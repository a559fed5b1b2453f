# SPDX-License-Identifier: Apache-2.0
"""Android phones, by the system's ``adb``. Not tried on hardware: its tests have a fake ``adb``.

A phone has no Python, so TFLite's own ``benchmark_model``, a program that the user names, is pushed
and run there, and what it prints is read. All of it happens in a folder of its own below
``/data/local/tmp/edgeprune``, which is removed at the end.
"""

import contextlib
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.benchmark_text import Benchmark, failure, parse_benchmark
from edgeprune.device.process import ask, last_line
from edgeprune.errors import DeviceError, InputError

__all__ = ["Facts", "Phone", "Visit"]

_HOME = "/data/local/tmp/edgeprune"
_PATIENCE = 60.0
_PUSH_PATIENCE = 600.0
_END = re.compile(r"edgeprune: exit (\d+)\s*\Z")
_MASK = re.compile(r"[0-9a-fA-F]{1,32}")

_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.model",
    "ro.build.version.release",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
)
_KEYS = (*_PROPERTIES, "cores", "kernel", "governor")
_FACTS = """
for key do echo "$key=$(getprop "$key")"; done
echo "cores=$(nproc 2>/dev/null)"
echo "kernel=$(uname -r)"
echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
"""
_MAKE = 'mkdir -p "$1" && chmod 700 "$1"'
_ALLOW = 'chmod 755 "$1"'
_REMOVE = 'rm -rf "$1" && { rmdir "$2" 2>/dev/null || true; }'
_RUN = 'cd "$1" && shift && exec "$@"'

# ELF class and machine, by the names that Android has for them
_ABIS = {
    (1, 3): "x86",
    (1, 40): "armeabi-v7a",
    (2, 62): "x86_64",
    (2, 183): "arm64-v8a",
    (2, 243): "riscv64",
}
_STATES = {
    "unauthorized": "it doesn't trust this computer yet; accept the question on its screen",
    "offline": "it is offline; plug it in again, or restart its USB debugging",
    "no permissions": "this user may not open its USB device; a udev rule is needed",
}


@dataclass(frozen=True)
class Facts:
    """What a phone says of itself."""

    title: str
    """Maker, model, SoC, cores, versions, governor, in one line."""
    abis: tuple[str, ...]
    """That it can run, the preferred one first: ``arm64-v8a``."""


class Phone:
    """A phone (or an emulator) that adb knows.

    Args:
        serial: Its serial number, as ``adb devices`` shows it.
    """

    def __init__(self, serial: str) -> None:
        self.serial = serial

    @property
    def name(self) -> str:
        """As the user writes it."""
        return f"adb:{self.serial}"

    def check(self) -> None:
        """See that it can be talked to.

        Raises:
            DeviceError: There is no adb, or no such phone; it is offline, or doesn't trust this
                computer; or two have the same serial number.
        """
        done = self._adb(["devices"], _PATIENCE)
        if done.returncode:
            raise DeviceError(f"{self.name}: adb devices: {last_line(done.stderr)}")
        known = [
            line.split("\t", 1)
            for line in done.stdout.splitlines()
            if "\t" in line and not line.startswith("*")
        ]
        states = [state.strip() for serial, state in known if serial == self.serial]
        if not states:
            others = ", ".join(f"{serial} ({state.strip()})" for serial, state in known)
            raise DeviceError(f"{self.name}: adb knows no such device; it knows {others or 'none'}")
        if len(states) > 1:
            raise DeviceError(
                f"{self.name}: adb knows {len(states)} devices of this serial number; unplug one"
            )
        state = states[0]
        if state != "device":
            cause = next((text for key, text in _STATES.items() if state.startswith(key)), None)
            raise DeviceError(f"{self.name}: {cause or f'its state is {state!r}, not device'}")

    def facts(self) -> Facts:
        """Ask for model, versions and ABIs.

        Raises:
            DeviceError: It can't be reached.
        """
        code, text = self.script(_FACTS, *_PROPERTIES)
        if code:
            raise DeviceError(f"{self.name}: asking for its model failed: {last_line(text)}")
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        told = {key: found.get(key, "").strip() for key in _KEYS}
        model = f"{told['ro.product.manufacturer']} {told['ro.product.model']}".strip()
        soc, release = told["ro.soc.model"], told["ro.build.version.release"]
        parts = [
            (model or "Android device") + (f" ({soc})" if soc else ""),
            told["cores"] and f"{told['cores']} cores",
            release and f"Android {release}",
            told["kernel"] and f"Linux {told['kernel']}",
            told["governor"] and f"governor {told['governor']}",
        ]
        abis = told["ro.product.cpu.abilist"] or told["ro.product.cpu.abi"]
        return Facts(
            ", ".join(filter(None, parts)), tuple(filter(None, map(str.strip, abis.split(","))))
        )

    def script(self, text: str, *arguments: str, timeout: float = _PATIENCE) -> tuple[int, str]:
        """Run a constant ``sh`` text, which finds ``arguments`` in ``$1`` ...

        Returns:
            Its exit code (of old versions of Android too, whose adb doesn't tell), and both of its
            outputs as one text.

        Raises:
            DeviceError: The phone can't be reached, the connection broke, or time is over.
        """
        words = shlex.join(["sh", "-c", text, "sh", *arguments])
        done = self._adb(
            ["-s", self.serial, "shell", f'{words} 2>&1; echo "edgeprune: exit $?"'], timeout
        )
        output = done.stdout.replace("\r\n", "\n")
        end = _END.search(output)
        if end is None:
            raise DeviceError(
                f"{self.name}: the connection broke: {last_line(done.stderr or output)}"
            )
        return int(end[1]), output[: end.start()]

    @contextlib.contextmanager
    def visit(self, benchmark_model: Path, models: Mapping[str, Path]) -> Iterator["Visit"]:
        """Bring the program and the models there, and remove them at the end.

        Args:
            benchmark_model: Built for Android, for the phone's ABI.
            models: ``.tflite`` files by name.

        Raises:
            InputError: A file can't be read, or ``benchmark_model`` isn't a program.
            DeviceError: The phone can't be reached, has no room, or can't run the program's ABI.
        """
        self.check()
        abi = _abi(benchmark_model)
        facts = self.facts()
        if facts.abis and abi not in facts.abis:
            raise DeviceError(
                f"{self.name}: {benchmark_model} is built for {abi}, this phone runs "
                f"{', '.join(facts.abis)}"
            )
        folder = f"{_HOME}/{secrets.token_hex(6)}"
        self._must(_MAKE, folder)
        try:
            self._push(benchmark_model, f"{folder}/benchmark_model")
            self._must(_ALLOW, f"{folder}/benchmark_model")
            there = {name: f"m{index}.tflite" for index, name in enumerate(models)}
            for name, path in models.items():
                self._push(path, f"{folder}/{there[name]}")
            yield Visit(self, folder, there, facts)
        except BaseException:
            with contextlib.suppress(DeviceError):  # the first error tells more
                self._must(_REMOVE, folder, _HOME)
            raise
        self._must(_REMOVE, folder, _HOME)

    def _must(self, text: str, *arguments: str) -> None:
        code, said = self.script(text, *arguments)
        if code:
            raise DeviceError(f"{self.name}: {arguments[0]}: {last_line(said)}")

    def _push(self, path: Path, to: str) -> None:
        if not path.is_file():
            raise InputError(f"{path}: can't be read: there is no such file")
        done = self._adb(["-s", self.serial, "push", str(path.absolute()), to], _PUSH_PATIENCE)
        if done.returncode:
            raise DeviceError(
                f"{self.name}: {path} can't be pushed: {last_line(done.stderr or done.stdout)}"
            )

    def _adb(self, words: Sequence[str], timeout: float) -> "subprocess.CompletedProcess[str]":
        program = shutil.which("adb")
        if program is None:
            raise DeviceError(
                f"{self.name}: adb isn't installed; Debian's package is adb, elsewhere it is in "
                "Android's platform-tools"
            )
        try:
            return ask([program, *words], timeout=timeout)
        except subprocess.TimeoutExpired:
            verb = next(word for word in words if word not in ("-s", self.serial))
            raise DeviceError(
                f"{self.name}: adb {verb} took more than {timeout:.0f} s and was stopped"
            ) from None


@dataclass(frozen=True)
class Visit:
    """The program and the models on the phone, while they are there."""

    phone: Phone
    folder: str
    names: Mapping[str, str]
    """Of each model, its name there."""
    facts: Facts

    def run(
        self, name: str, options: Mapping[str, object], *, cores: str | None, timeout: float
    ) -> Benchmark:
        """Run ``benchmark_model`` once, in a process of its own.

        Args:
            name: The model.
            options: Of ``benchmark_model``, without their dashes.
            cores: Mask of the cores that it may use, in hex (``f0``: cores 4 to 7); ``None``: all.
            timeout: Seconds.

        Raises:
            InputError: ``cores`` isn't a mask.
            DeviceError: It can't be started, failed, was killed, or took too long.
        """
        if cores is not None and not _MASK.fullmatch(cores):
            raise InputError(f"cores '{cores}': should be a mask in hex, such as f0")
        words = [] if cores is None else ["taskset", cores]
        words += ["./benchmark_model", f"--graph={self.names[name]}"]
        words += [f"--{key}={_flag(value)}" for key, value in options.items()]
        code, text = self.phone.script(_RUN, self.folder, *words, timeout=timeout)
        where = f"{name}: benchmark_model on {self.phone.name}"
        if code in (126, 127) or "CANNOT LINK EXECUTABLE" in text:
            raise DeviceError(
                f"{where} can't be started ({failure(text)}); it has to be built for Android, "
                f"{self.facts.abis[0] if self.facts.abis else 'the ABI of this phone'}"
            )
        if code == 137:
            raise DeviceError(f"{where} was killed, most likely for want of memory")
        if code:
            raise DeviceError(f"{where} failed (exit code {code}): {failure(text)}")
        try:
            return parse_benchmark(text)
        except DeviceError as error:
            raise DeviceError(f"{name}: on {self.phone.name} {error}") from None


def _abi(program: Path) -> str:
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise InputError(f"{program}: can't be read: {error.strerror}") from None
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise InputError(f"{program}: isn't a program for Android: benchmark_model is an ELF file")
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return _ABIS.get((head[4], machine), f"machine {machine}")


def _flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
