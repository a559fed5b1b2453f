# SPDX-License-Identifier: Apache-2.0
"""A folder on a board, and every single thing that is done to it.

    versions/ID/     a whole version: its files, manifest.json, SHA256SUMS
    incoming/ID/     one on its way; nothing reads it
    current          a link to versions/ID, replaced by rename(2), which is atomic
    previous/ID      a link to the version that was current before ID
    unproven         a link to a version that is current but not yet found healthy there
    lock             a link that leads nowhere; its text says who is at work

Each step is one constant ``sh`` text with the names as arguments. A step that changes anything
first makes sure that the lock is still its own. Needed there: sh, cat, ln, ls, mkdir, mv (with
-T), rm, sha256sum, sync, wc.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deploy.listing import SCRIPT, Listing, parse_listing
from edgeprune.deploy.release import SUMS
from edgeprune.device.shell import Done, Shell
from edgeprune.device.transfer import failure, put
from edgeprune.errors import DeviceError
from edgeprune.progress import Progress

__all__ = ["Board", "LockLost"]

_TIMEOUT = 120.0
"""Seconds for one step; a slow card may take some to flush."""

_GUARD = """
LC_ALL=C; export LC_ALL
cd "$1" || exit 1
case $(ls -ld lock 2>/dev/null) in *" -> edgeprune-$2-"*) ;; *) exit 75 ;; esac
"""
_LOST, _CHANGED, _NOT_WHOLE, _NO_RENAME = 75, 76, 77, 78

_PREPARE = (
    _GUARD
    + """
rm -f lock.try lock.try.new
ln -s one lock.try && ln -s two lock.try.new || exit 1
mv -f -T lock.try.new lock.try; moved=$?
case $(ls -ld lock.try) in *" -> two") ;; *) moved=1 ;; esac
rm -f lock.try lock.try.new
[ $moved = 0 ] || exit 78
for folder in versions incoming previous; do
  if [ -L $folder ]; then echo "$1/$folder: is a link" >&2; exit 1; fi
  [ -d $folder ] || mkdir $folder || exit 1
done
"""
)

_VERIFY = (
    _GUARD
    + """
cd "incoming/$3" || exit 1
name=$3
shift 3
for file in * .[!.]*; do
  [ -e "$file" ] || [ -L "$file" ] || continue
  known=
  for wanted in "$@"; do [ "$file" = "$wanted" ] && known=1; done
  [ "$known" ] || rm -rf "./$file"
done
cat SHA256SUMS || exit 1
sha256sum -c SHA256SUMS >/dev/null 2>&1 && exit 0
for file in "$@"; do
  [ "$file" = SHA256SUMS ] && continue
  sum=$(sha256sum <"./$file")
  listed=
  while IFS= read -r line; do [ "$line" = "${sum%% *}  $file" ] && listed=1; done <SHA256SUMS
  [ "$listed" ] || { rm -f "./$file"; echo "$file: damaged" >&2; }
done
exit 77
"""
)
_PROMOTE = (
    _GUARD
    + """
sync
if [ -e "versions/$3" ] || [ -L "versions/$3" ]; then exit 76; fi
mv -T "incoming/$3" "versions/$3" && sync
"""
)

_AS_PLANNED = """
now=
if [ -L current ]; then now=$(ls -ld current); now=${now#* -> }
elif [ -e current ]; then exit 76; fi
[ "$now" = "$4" ] || exit 76
"""
_SWITCH = (
    _GUARD
    + _AS_PLANNED
    + """
[ -f "versions/$3/SHA256SUMS" ] || exit 77
rm -f previous.new unproven.new current.new
if [ "$4" ]; then
  ln -s "../$4" previous.new && mv -f -T previous.new "previous/$3" || exit 1
else
  rm -f "previous/$3" || exit 1
fi
ln -s "versions/$3" unproven.new && mv -f -T unproven.new unproven || exit 1
sync
ln -s "versions/$3" current.new && mv -f -T current.new current && sync
"""
)
_RETURN = (
    _GUARD
    + _AS_PLANNED
    + """
rm -f current.new
if [ "$3" ]; then
  [ -f "versions/$3/SHA256SUMS" ] || exit 77
  ln -s "versions/$3" current.new && mv -f -T current.new current || exit 1
else
  rm -f current || exit 1
fi
rm -f unproven && sync
"""
)
_CONFIRM = (
    _GUARD
    + """
rm -f previous.new unproven.new current.new
rm -rf incoming/.gone
rm -f unproven && sync
"""
)
_PRUNE = (
    _GUARD
    + """
rm -rf incoming/.gone || exit 1
shift 2
for name in "$@"; do
  case $(ls -ld current 2>/dev/null) in *" -> versions/$name") continue ;; esac
  if [ -d "versions/$name" ]; then mv -T "versions/$name" incoming/.gone || exit 1; fi
  rm -rf incoming/.gone "incoming/$name" "previous/$name" || exit 1
done
"""
)
_COMMAND = 'cd "$1/current" && exec sh -c "$2"'


class LockLost(DeviceError):
    """Somebody else took over the folder."""


@dataclass(frozen=True)
class Board:
    """A folder on a device, reached by ``shell``."""

    shell: Shell
    folder: str

    @property
    def name(self) -> str:
        """The device and the folder, for messages."""
        return f"{self.shell.name}:{self.folder}"

    def path(self, *parts: str) -> str:
        """The absolute path of something in the folder."""
        return posixpath.join(self.folder, *parts)

    def look(self, *versions: str) -> Listing:
        """See what is there, changing nothing; ``versions`` are read whole and their hashes
        compared.

        Raises:
            DeviceError: The device can't be reached, or the folder can't be read.
        """
        done = self.shell.script(SCRIPT, self.folder, *versions, timeout=_TIMEOUT)
        if done.code:
            raise failure(self.shell, self.folder, done)
        return parse_listing(done.out.decode(errors="replace"), self.name)

    def prepare(self, token: str) -> None:
        """Make the folders, having made sure that links can be replaced atomically there."""
        self._do(_PREPARE, token)

    def upload(self, path: Path, version: str, name: str, progress: Progress) -> None:
        """Bring a file into the folder for incoming ones, going on where it was cut."""
        put(self.shell, path, self.path("incoming", version, name), progress)

    def verify(self, token: str, version: str, names: Sequence[str], sums: str) -> None:
        """Hash all that arrived; nothing but ``names`` stays there.

        Raises:
            DeviceError: A file isn't what it should be; it was removed.
        """
        done = self._do(_VERIFY, token, version, *names, SUMS)
        if done.out.decode(errors="replace") != sums:
            raise DeviceError(f"{self.name}: {SUMS} arrived damaged; run the command again")

    def promote(self, token: str, version: str) -> None:
        """Make a version of what arrived, by one rename."""
        self._do(_PROMOTE, token, version)

    def switch(self, token: str, version: str, before: str | None) -> None:
        """Let ``current`` lead to ``version`` instead of ``before``, atomically."""
        self._do(_SWITCH, token, version, _link(before))

    def go_back(self, token: str, version: str | None, now: str) -> None:
        """Let ``current`` lead to ``version`` instead of ``now``; to nothing where that is
        ``None``."""
        self._do(_RETURN, token, version or "", _link(now))

    def confirm(self, token: str) -> None:
        """Note that what is current was found healthy there; what interrupted steps left goes."""
        self._do(_CONFIRM, token)

    def prune(self, token: str, versions: Sequence[str]) -> None:
        """Remove versions, or what arrived of them, for good."""
        self._do(_PRUNE, token, *versions)

    def command(self, text: str, timeout: float) -> Done:
        """Run the user's own command in the current version's folder."""
        return self.shell.script(_COMMAND, self.folder, text, timeout=timeout)

    def _do(self, script: str, token: str, *arguments: str) -> Done:
        done = self.shell.script(script, self.folder, token, *arguments, timeout=_TIMEOUT)
        if done.code == 0:
            return done
        known = {
            _CHANGED: "was changed by somebody else meanwhile; look with --list and run again",
            _NOT_WHOLE: "arrived damaged (the damaged file was removed); run the command again",
            _NO_RENAME: "its `mv` has no -T, without which a link can't be replaced atomically; "
            "nothing was changed (a newer busybox or coreutils has it)",
        }
        if done.code == _LOST:
            raise LockLost(f"{self.name}: another deploy took over the lock; run the command again")
        if done.code in known:
            first = done.err.strip().splitlines()[:1]
            detail = f"{first[0].partition(':')[0]}: " if done.code == _NOT_WHOLE and first else ""
            raise DeviceError(f"{self.name}: {detail}{known[done.code]}")
        raise failure(self.shell, self.folder, done)


def _link(version: str | None) -> str:
    return "" if version is None else f"versions/{version}"
