# SPDX-License-Identifier: Apache-2.0
"""What lies in a deployment folder, as a script on the board tells it."""

from dataclasses import dataclass, field

from edgeprune.deploy.release import is_version
from edgeprune.errors import DeviceError, InputError

__all__ = ["SCRIPT", "Listing", "Version", "parse_listing"]

SCRIPT = """
LC_ALL=C; export LC_ALL
echo begin
for tool in cat ln ls mkdir mv rm sha256sum sync wc; do
  command -v $tool >/dev/null 2>&1 || echo "missing $tool"
done
if [ ! -e "$1" ] && [ ! -L "$1" ]; then echo absent; echo end; exit 0; fi
if [ ! -d "$1" ]; then echo nofolder; echo end; exit 0; fi
cd "$1" || exit 1
link() {
  text=$(ls -ld "$1"); text=${text#* -> }
  case $text in *[!0-9A-Za-z._/-]*) text='?' ;; esac
}
for name in current unproven lock; do
  if [ -L $name ]; then link $name; echo "link $name $text"
  elif [ -e $name ]; then echo "other $name"; fi
done
for name in versions incoming previous; do
  if [ -L $name ]; then echo "other $name"
  elif [ -e $name ] && [ ! -d $name ]; then echo "other $name"; fi
done
for folder in versions/*/; do
  name=${folder#versions/}; name=${name%/}
  case $name in *[!0-9A-Za-z._-]*) continue ;; esac
  [ -L "versions/$name" ] && continue
  [ -f "versions/$name/SHA256SUMS" ] || continue
  text=-
  [ -L "previous/$name" ] && link "previous/$name"
  size=$(cat "versions/$name/"* | wc -c)
  echo "version $name $text" $size
done
for folder in incoming/*/; do
  name=${folder#incoming/}; name=${name%/}
  case $name in *[!0-9A-Za-z._-]*) continue ;; esac
  size=$(cat "incoming/$name/"* "incoming/$name/".edgeprune-*.part 2>/dev/null | wc -c)
  echo "incoming $name" $size
done
shift
for name in "$@"; do
  [ -d "versions/$name" ] || continue
  state=damaged
  (cd "versions/$name" && sha256sum -c SHA256SUMS >/dev/null 2>&1) && state=whole
  echo "$state $name"
  [ -f "versions/$name/SHA256SUMS" ] || continue
  while IFS= read -r line; do printf 'sum %s %s\\n' "$name" "$line"; done \
<"versions/$name/SHA256SUMS"
done
echo end
"""

_TARGET = "versions/"


@dataclass(frozen=True)
class Version:
    """A version that is there."""

    name: str
    bytes: int
    before: str | None
    """The version that was current before it."""


@dataclass(frozen=True)
class Listing:
    """What is in the folder; nothing where it isn't there."""

    versions: dict[str, Version] = field(default_factory=dict)
    current: str | None = None
    unproven: bool = False
    """Whether the current one was switched to and not found healthy since."""
    lock: str | None = None
    """The text of the lock."""
    incoming: dict[str, int] = field(default_factory=dict)
    """Bytes that have arrived of versions on their way."""
    whole: dict[str, bool] = field(default_factory=dict)
    """Whether the hashes of the versions that were asked for are right."""
    sums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines of ``SHA256SUMS`` of those."""

    @property
    def previous(self) -> str | None:
        """The version to go back to, where there is one."""
        return None if self.current is None else self.versions[self.current].before

    def history(self) -> tuple[str, ...]:
        """The versions, the current one first, then the one before it, and so on; then those
        that were left."""
        order: dict[str, None] = {}
        name = self.current
        while name is not None and name not in order:
            order[name] = None
            name = self.versions[name].before
        return (*order, *sorted(set(self.versions) - set(order)))


def parse_listing(text: str, where: str) -> Listing:
    """Read what ``SCRIPT`` printed.

    Raises:
        InputError: The folder is none that this program made, or could use.
        DeviceError: The board lacks a program, or its shell gave something else.
    """
    lines = _told(text, where)
    missing = [rest for word, rest in lines if word == "missing"]
    if missing:
        raise DeviceError(f"{where}: the board has no {', '.join(missing)}; install them there")
    for word, rest in lines:
        if word == "nofolder":
            raise InputError(f"{where}: is a file, not a folder; choose another folder")
        if word == "other":
            raise InputError(f"{where}: its '{rest}' wasn't made by edgeprune; {_AWAY}")
    try:
        return _listing(lines, where)
    except ValueError:  # a program there failed, so that a word is missing
        raise DeviceError(f"{where}: {_UNUSABLE}") from None


def _listing(lines: list[tuple[str, str]], where: str) -> Listing:
    links = dict(rest.split(" ", 1) for word, rest in lines if word == "link")
    found = [rest.split(" ") for word, rest in lines if word == "version"]
    names = {name for name, _, _ in found}
    versions = {n: Version(n, int(size), _before(text, names)) for n, text, size in found}
    current = _current(links.get("current"), versions, where)
    incoming = [rest.split(" ") for word, rest in lines if word == "incoming"]
    sums: dict[str, tuple[str, ...]] = {}
    for name, line in (rest.split(" ", 1) for word, rest in lines if word == "sum"):
        sums[name] = (*sums.get(name, ()), line)
    return Listing(
        versions=versions,
        current=current,
        unproven=current is not None and links.get("unproven") == f"{_TARGET}{current}",
        lock=links.get("lock"),
        incoming={name: int(size) for name, size in incoming},
        whole={rest: word == "whole" for word, rest in lines if word in ("whole", "damaged")},
        sums=sums,
    )


_UNUSABLE = "the device's shell gave no usable answer"
_AWAY = "move it away, or choose another folder"


def _told(text: str, where: str) -> list[tuple[str, str]]:
    """The lines between ``begin`` and ``end``: a login shell's start-up file may print more."""
    lines = text.splitlines()
    if "begin" not in lines or not lines or lines[-1] != "end":
        raise DeviceError(f"{where}: {_UNUSABLE}")
    inner = lines[lines.index("begin") + 1 : -1]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in inner)]


def _before(text: str, names: set[str]) -> str | None:
    name = text.removeprefix(f"../{_TARGET}")
    return name if name in names else None


def _current(text: str | None, versions: dict[str, Version], where: str) -> str | None:
    if text is None:
        return None
    name = text.removeprefix(_TARGET)
    if name == text or not is_version(name):
        raise InputError(f"{where}: current leads out of versions/; {_AWAY}")
    if name not in versions:
        raise InputError(f"{where}: current leads to {text}, which isn't a version; {_AWAY}")
    return name
