# SPDX-License-Identifier: Apache-2.0
"""Files that edgeprune brings along, a folder of TOML files for each kind."""

from pathlib import Path

__all__ = ["by_name", "folders"]


def folders(kind: str, near: Path = Path()) -> tuple[Path, ...]:
    """Where files of a kind are looked for, in order: in ``near``, beside the package, inside it.

    Args:
        kind: The folder's name: ``targets``, ``calibration``.
        near: The folder whose own ones go before the shipped ones.
    """
    package = Path(__file__).parent
    return (near / kind, package.parent / kind, package / "_data" / kind)


def by_name(kind: str, near: Path = Path()) -> dict[str, Path]:
    """Every known file of a kind by its name; a user's own file hides a shipped one."""
    found: dict[str, Path] = {}
    for folder in folders(kind, near):
        for path in folder.glob("*.toml"):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
