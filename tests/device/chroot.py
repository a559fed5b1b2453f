# SPDX-License-Identifier: Apache-2.0
"""An emulated board behind a real sshd: who logs in finds arm64 programs and nothing else.

The server runs in a mount namespace of its own, in which the board's folder is the root of all
logins, and the kernel starts arm64 programs by QEMU. Both are gone when the server is.
"""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.sshd import Server, sshd

__all__ = ["board_behind_sshd", "entries", "lacks", "qemus"]

QEMU = "/usr/bin/qemu-aarch64-static"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
_AT = "/mnt"
"""Where the board's folder is in the namespace: a chroot's place must be writable by root only."""
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
"""An ELF file for arm64, as an executable or a shared object."""

# P: QEMU learns the name that the program was called by; F: it is opened here and now, so that it
# is found from within the chroot too.
_FLAGS = "PF"

_ENTER = f"""
set -e
root=$1 entry=$2; shift 2
mount --bind "$root" {_AT}
mount -t proc proc {_AT}/proc
for file in cpuinfo meminfo; do mount --bind "$root/proc/$file" {_AT}/proc/$file; done
mount --rbind /dev {_AT}/dev
mount -t binfmt_misc binfmt_misc {BINFMT}
printf %s ":$entry:M::{_MAGIC}:{_MASK}:{QEMU}:{_FLAGS}" > {BINFMT}/register
exec "$@"
"""
_ENTRIES = f"mount -t binfmt_misc binfmt_misc {BINFMT} && ls {BINFMT}"
_FORGET = f"""
mount -t binfmt_misc binfmt_misc {BINFMT}
if [ -e {BINFMT}/"$1" ]; then echo -1 > {BINFMT}/"$1"; fi
"""
_PRIVATE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


def lacks() -> str | None:
    """Why there can be no such board here, and what would help; ``None``: there can be."""
    if os.geteuid() != 0:
        return "only root can make a namespace and tell the kernel of QEMU; run it as root"
    if not Path(QEMU).exists():
        return f"no {QEMU} here: apt-get install --no-install-recommends qemu-user-static"
    if subprocess.run([*_PRIVATE, _ENTRIES], capture_output=True, check=False).returncode:
        return (
            "this kernel doesn't let us mount binfmt_misc: modprobe binfmt_misc, or run it in a "
            "privileged container"
        )
    return None


def entries() -> set[str]:
    """The kinds of programs that the kernel starts by another."""
    done = subprocess.run([*_PRIVATE, _ENTRIES], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - {"register", "status"}


@contextlib.contextmanager
def board_behind_sshd(root: Path, cpu: str) -> Iterator[Server]:
    """Serve the userland in ``root`` while the context is open; ``cpu`` is QEMU's name of one."""
    add_shell(root)
    entry = f"edgeprune-{os.getpid()}"
    extra = (f"ChrootDirectory {_AT}", f"SetEnv QEMU_CPU={cpu}")
    # it ends with us, even if we are killed and can't end it
    wrap = ("setpriv", "--pdeathsig", "TERM", *_PRIVATE, _ENTER, "sh", str(root), entry)
    try:
        with sshd(extra=extra, wrap=wrap) as server:
            home = root / server.home.relative_to("/")
            home.mkdir(parents=True)
            user = pwd.getpwnam(server.user)
            os.chown(home, user.pw_uid, user.pw_gid)
            yield server
    finally:
        subprocess.run([*_PRIVATE, _FORGET, "sh", entry], check=True)


def add_shell(root: Path) -> None:
    """Give a userland busybox's sh, cat, mv ... where it has none of its own."""
    listed = subprocess.run(
        ["qemu-aarch64-static", str(root / "bin/busybox"), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    for applet in listed.stdout.split():
        if not any((root / folder / applet).exists() for folder in ("bin", "usr/bin")):
            (root / "bin" / applet).symlink_to("busybox")
    (root / "tmp").chmod(0o1777)


def qemus(folder: Path) -> list[int]:
    """Processes that still run from ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found
