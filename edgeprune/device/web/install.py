# SPDX-License-Identifier: Apache-2.0
"""The runtimes' files: fetched by npm, checked against their hashes, put in place by one rename."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.process import ask
from edgeprune.errors import DeviceError, OutputError
from edgeprune.progress import Progress

__all__ = [
    "NODE_NEEDED",
    "Package",
    "installed",
    "node",
    "node_module",
    "page_files",
    "runtime_name",
    "set_up",
]

NODE_NEEDED = 18
"""Oldest major version of Node that has all that the measuring program uses."""
_HOURGLASS = 600.0


@dataclass(frozen=True)
class Package:
    """A package of npm, and those of its files that are kept."""

    name: str
    version: str
    integrity: str
    """Hash of its archive, as npm writes it."""
    keep: tuple[str, ...]
    """Files, or folders with a slash at the end."""


_ORT, _ORT_WASM = "onnxruntime-web", "dist/ort-wasm-simd-threaded"
_LITE, _LITE_WASM = "@litertjs/core", "wasm/litert_wasm"
_ABOUT = ("package.json", "README.md")
# Most of what the archives hold is for WebGPU and WebGL: 36 of 190 MB are what the CPU needs.
_PACKAGES = {
    "onnx": (
        Package(
            "onnxruntime-common",
            "1.30.0",
            "sha512-7fdVWjAID1dVhH/G8qK3APARunV4VkBFoCQAP7qp4Wkab0mrorvmc+sqiT+mKXOzDqdjN5j+/Z9nb4gzNPWcyA==",
            (*_ABOUT, "dist/esm/"),
        ),
        Package(
            _ORT,
            "1.30.0",
            "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
            (
                *_ABOUT,
                "dist/ort.node.min.mjs",
                "dist/ort.wasm.min.mjs",
                f"{_ORT_WASM}.mjs",
                f"{_ORT_WASM}.wasm",
            ),
        ),
    ),
    "tflite": (
        Package(
            "@litertjs/wasm-utils",
            "2.5.3",
            "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
            (*_ABOUT, "dist/index.js"),
        ),
        Package(
            _LITE,
            "2.5.3",
            "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
            (
                *_ABOUT,
                "dist/index.js",
                *(
                    f"{_LITE_WASM}{variant}_internal.{end}"
                    for variant in ("", "_compat", "_threaded")
                    for end in ("js", "wasm")
                ),
            ),
        ),
    ),
}
"""By the format that they run; the runtime itself is the last one."""


def set_up(folder: Path, progress: Progress) -> str:
    """Fetch the runtimes into ``folder`` with npm; give one sentence of what is there.

    What stands there already in the right version is left alone. An interrupted set-up leaves
    nothing behind.

    Raises:
        DeviceError: Node or npm is missing or too old, or npm can't fetch a package.
        OutputError: ``folder`` can't be written.
    """
    version = node()[1]
    if not installed(folder):
        npm = shutil.which("npm")
        if npm is None:
            raise DeviceError(_missing("npm isn't installed (Node is)"))
        wanted = [package for packages in _PACKAGES.values() for package in packages]
        with progress.bar("fetching", len(wanted)) as bar, _fresh(folder) as fresh:
            for package in wanted:
                _install(package, npm, fresh)
                bar.advance()
    names = " and ".join(runtime_name(form) for form in _PACKAGES)
    return f"{names}, and Node {version} to run them; in {folder}"


def runtime_name(form: str) -> str:
    """Name and version of what runs ``onnx`` or ``tflite``."""
    package = _PACKAGES[form][-1]
    return f"{package.name} {package.version}"


def installed(folder: Path) -> bool:
    """Whether ``folder`` holds the runtimes in the versions that this edgeprune measures with."""
    return all(_there(folder, package) for packages in _PACKAGES.values() for package in packages)


def node_module(folder: Path) -> Path:
    """What Node imports to run an ``.onnx`` file.

    Raises:
        DeviceError: It isn't set up there.
    """
    _check(folder)
    return folder / "node_modules" / _ORT / "dist/ort.node.min.mjs"


def page_files(folder: Path, form: str) -> dict[str, Path]:
    """Files that a page needs to run ``onnx`` or ``tflite``, by the names that they have for it.

    The first one is the module to import.

    Raises:
        DeviceError: They aren't set up there.
    """
    _check(folder)
    home = folder / "node_modules"
    if form == "onnx":
        dist = home / _ORT / "dist"
        first = dist / "ort.wasm.min.mjs"
        return {path.name: path for path in (first, *dist.glob("ort-wasm-*"))}
    return {
        "index.js": home / _LITE / "dist/index.js",
        "wasm-utils.js": home / "@litertjs/wasm-utils/dist/index.js",
        **{f"wasm/{path.name}": path for path in (home / _LITE / "wasm").iterdir()},
    }


def _check(folder: Path) -> None:
    if not installed(folder):
        raise DeviceError(
            f"{folder}: {runtime_name('onnx')} isn't there; to fetch it: edgeprune device add web"
        )


def _there(folder: Path, package: Package) -> bool:
    home = _home(folder, package)
    if not all((home / name).exists() for name in package.keep):
        return False
    described = json.loads((home / "package.json").read_text(encoding="utf-8"))
    return bool(described.get("version") == package.version)


def node() -> tuple[str, str]:
    """Path and version of Node.

    Raises:
        DeviceError: There is none, or an old one.
    """
    program = shutil.which("node")
    if program is None:
        raise DeviceError(_missing("Node isn't installed"))
    done = ask([program, "--version"], timeout=60)
    found = re.match(r"v(\d+)[\d.]*", done.stdout)
    if found is None:
        raise DeviceError(_missing(f"{program} --version fails"))
    if int(found[1]) < NODE_NEEDED:
        raise DeviceError(_missing(f"{program} is version {found[0][1:]}"))
    return program, found[0][1:]


def _missing(what: str) -> str:
    return f"web: {what}; install Node {NODE_NEEDED} or newer with npm"


def _home(folder: Path, package: Package) -> Path:
    return folder / "node_modules" / package.name


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its place at the end, or goes."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror}") from None
    try:
        yield fresh
        old = fresh.with_name(fresh.name + ".old")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _install(package: Package, npm: str, fresh: Path) -> None:
    with tempfile.TemporaryDirectory(dir=fresh) as place:
        archive = _fetch(package, npm, Path(place))
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if package.integrity != f"sha512-{base64.b64encode(digest).decode()}":
            raise DeviceError(
                f"{package.name} {package.version}: what npm fetched isn't the known archive "
                "(its sha512 differs); nothing was installed"
            )
        with tarfile.open(archive) as file:
            for member in file:
                name = member.name.partition("/")[2]
                content = file.extractfile(member)
                if content and any(name == kept or name.startswith(kept) for kept in package.keep):
                    target = _home(fresh, package) / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())


def _fetch(package: Package, npm: str, place: Path) -> Path:
    """Have npm download the archive; it checks and caches it, and runs no scripts of it."""
    spec = f"{package.name}@{package.version}"
    try:
        done = ask(
            [npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(place)],
            timeout=_HOURGLASS,
            folder=place,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"npm pack {spec}: took more than {_HOURGLASS:.0f} s") from None
    archives = list(place.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        said = (errors or done.stderr.strip().splitlines() or ["no message"])[0]
        raise DeviceError(f"npm pack {spec}: {said.removeprefix('npm error ').strip()}")
    return archives[0]
