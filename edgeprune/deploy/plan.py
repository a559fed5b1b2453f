# SPDX-License-Identifier: Apache-2.0
"""What a deployment will do, decided before anything is done. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from edgeprune.deploy.listing import Listing
from edgeprune.deploy.release import Release
from edgeprune.errors import InputError
from edgeprune.units import format_bytes

__all__ = ["Plan", "candidates", "make_plan", "surplus"]


@dataclass(frozen=True)
class Plan:
    """From what is on a board to what shall be there."""

    version: str
    before: str | None
    """What is current now."""
    upload: bool
    """Whether its files have to be brought; they are there whole otherwise."""
    bytes: int
    """Of all its files."""
    arrived: int
    """Bytes of them that an earlier attempt brought."""
    switch: bool
    """Whether ``current`` has to be changed."""
    fallback: str | None
    """What ``current`` shall lead to where the version isn't healthy; ``None``: to nothing."""
    undo: bool
    """Whether that shall be done at all: only a switch of this deployment, or of an interrupted
    one, is taken back."""
    remove: tuple[str, ...]
    """Versions that go at the end."""
    drop: tuple[str, ...]
    """Versions on their way, of which nothing more will come."""

    @property
    def sent(self) -> int:
        """Bytes still to be sent."""
        return max(0, self.bytes - self.arrived) if self.upload else 0

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        if self.upload:
            had = f", {format_bytes(self.arrived)} of them are there" if self.arrived else ""
            yield f"upload {self.version}: {self.bytes:,} B{had}"
        else:
            yield f"{self.version} is there, whole: nothing is uploaded"
        if self.switch:
            yield f"switch current from {self.before or 'nothing'} to {self.version}"
        else:
            yield f"current leads to {self.version} already"
        for name in self.remove:
            yield f"remove {name}"
        for name in self.drop:
            yield f"remove what arrived of {name}"


def candidates(release: Release) -> tuple[str, str]:
    """The names that a release may have on a board, the first choice first."""
    return release.version, release.spare


def make_plan(listing: Listing, release: Release, *, keep: int) -> Plan:
    """Decide; ``listing`` must have looked into the ``candidates``.

    Args:
        listing: What is there.
        release: What shall be current.
        keep: How many versions may stay; the current one and the one before it always do.

    Raises:
        InputError: Both names that the release may have are taken by damaged or other folders.
    """
    name, whole = _place(listing, release)
    switch = listing.current != name
    before = listing.current if switch else listing.previous
    arrived = listing.incoming.get(name, 0)
    return Plan(
        version=name,
        before=listing.current,
        upload=not whole,
        bytes=release.bytes + len(release.sums()),
        arrived=min(arrived, release.bytes),
        switch=switch,
        fallback=before,
        undo=switch or (listing.unproven and before is not None),
        remove=surplus(listing, name, keep=keep),
        drop=tuple(sorted(set(listing.incoming) - {name})),
    )


def surplus(listing: Listing, current: str, *, keep: int) -> tuple[str, ...]:
    """Versions to remove once ``current`` is current: the oldest, so that ``keep`` are left."""
    order = list(listing.history())
    if current != listing.current:
        # The one that is current now comes next, and what was there of the new one moves up
        order = [current, *(name for name in order if name != current)]
        previous = listing.current
    else:
        previous = listing.previous
    if previous is not None:
        order = [current, previous, *(name for name in order if name not in (current, previous))]
    return tuple(name for name in order[max(keep, 2) :] if name in listing.versions)


def _place(listing: Listing, release: Release) -> tuple[str, bool]:
    """The folder's name, and whether all is in it already."""
    wanted = {f"{piece.sha256}  {piece.name}" for piece in release.artifacts}
    for name in candidates(release):
        if name not in listing.whole:
            return name, False
        # The manifest may differ: measured anew, the same run has other figures
        if listing.whole[name] and wanted <= set(listing.sums.get(name, ())):
            return name, True
    raise InputError(
        f"{release.version}: that version and {release.spare} are both on the board, damaged or "
        "with other files; remove them there"
    )
