# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``adb`` and a phone: pushes go to a folder, and ``shell`` is this machine's sh.

The texts that reach the phone's shell are really run, with ``/data/local/tmp`` turned into a folder
and a ``benchmark_model`` that prints what real ones printed.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

RECORDED = Path(__file__).parents[2] / "data" / "adb"
SERIAL = "R5CT10ABCDE"

_ADB = r"""#!/bin/sh
phone=@PHONE@
if [ "$1" = devices ]; then
  echo '* daemon not running; starting now at tcp:5037'
  printf 'List of devices attached\n'
  cat "$phone/devices"
  exit 0
fi
[ "$1" = -s ] || { echo 'error: more than one device/emulator' >&2; exit 1; }
[ ! -e "$phone/gone" ] || { echo "error: device '$2' not found" >&2; exit 1; }
case $3 in
push)
  to=$phone${5#/data/local/tmp}
  [ ! -e "$phone/full" ] || {
    echo "adb: error: failed to copy '$4' to '$5': remote write failed: No space left on device" >&2
    exit 1
  }
  cp "$4" "$to" || exit 1
  [ "${5##*/}" != benchmark_model ] || cp "$phone/benchmark_model" "$to"
  ;;
shell)
  text=$(printf '%s\n' "$4" | sed "s,/data/local/tmp,$phone,g"; echo .)
  PATH=$phone/bin:$PATH exec sh -c "${text%??}"
  ;;
esac
"""
_GETPROP = r"""#!/bin/sh
sed -n "s/^$1=//p" @PHONE@/properties
"""
_NPROC = """#!/bin/sh
echo 8
"""
_UNAME = """#!/bin/sh
echo 5.10.177
"""
_TASKSET = r"""#!/bin/sh
echo "taskset $1" >> @PHONE@/runs
shift
exec "$@"
"""
_BENCHMARK = r"""#!/bin/sh
printf '%s\n' "$*" >> @PHONE@/runs
[ ! -e @PHONE@/slow ] || sleep 4
case "$*" in
*report_peak_memory_footprint=true*) cat @PHONE@/output; cat @PHONE@/peak ;;
*) cat @PHONE@/output ;;
esac
exit "$(cat @PHONE@/code)"
"""
PROPERTIES = """ro.product.manufacturer=Google
ro.product.model=Pixel 6a
ro.soc.model=GS101
ro.build.version.release=14
ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi
ro.product.cpu.abi=arm64-v8a
"""


@dataclass(frozen=True)
class FakePhone:
    """What the stand-in is like; tests write to its files."""

    folder: Path
    """``/data/local/tmp``, and beside it what tells the stand-in what to do."""
    benchmark_model: Path
    """What the user names."""

    def prints(self, recorded: str, *, code: int = 0) -> None:
        """Make ``benchmark_model`` print a recorded output."""
        self.says((RECORDED / recorded).read_text(encoding="utf-8"), code=code)

    def says(self, text: str, *, code: int = 0) -> None:
        """Make ``benchmark_model`` print a text."""
        (self.folder / "output").write_text(text, encoding="utf-8")
        (self.folder / "code").write_text(str(code))

    def runs(self) -> list[str]:
        """Command lines of ``benchmark_model`` so far."""
        file = self.folder / "runs"
        return file.read_text().splitlines() if file.exists() else []

    def left(self) -> list[Path]:
        """What is still there of what was pushed."""
        return list((self.folder / "edgeprune").rglob("*"))


def make_phone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """A phone that is ready; its ``adb`` is the first on PATH."""
    phone, programs = folder / "phone", folder / "programs"
    for place in (phone, phone / "bin", programs):
        place.mkdir()
    texts = {
        programs / "adb": _ADB,
        phone / "bin/getprop": _GETPROP,
        phone / "bin/nproc": _NPROC,
        phone / "bin/taskset": _TASKSET,
        phone / "bin/uname": _UNAME,
        phone / "benchmark_model": _BENCHMARK,
    }
    for path, text in texts.items():
        path.write_text(text.replace("@PHONE@", str(phone)), encoding="utf-8")
        path.chmod(0o755)
    (phone / "devices").write_text(f"emulator-5554\toffline\n{SERIAL}\tdevice\n")
    (phone / "properties").write_text(PROPERTIES)
    (phone / "peak").write_text(
        "INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383\n"
    )
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("adb") == str(programs / "adb")
    fake = FakePhone(phone, elf(folder / "benchmark model;x"))
    fake.prints("litert.txt")
    return fake


def elf(path: Path, machine: int = 183, bits: int = 2) -> Path:
    """A file that says it is a program, for 64-bit Arm where not told otherwise."""
    head = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + (3).to_bytes(2, "little")
    path.write_bytes(head + machine.to_bytes(2, "little") + bytes(44))
    return path
