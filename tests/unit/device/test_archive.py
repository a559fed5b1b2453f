# SPDX-License-Identifier: Apache-2.0
"""The agent as one file: what is in it, and that old Pythons can run it."""

import ast
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune import __version__
from edgeprune.device import archive

LATER = {
    # methods and functions that Python 3.8 hasn't; attribute names that nothing else here has
    *("removeprefix", "removesuffix", "is_relative_to", "with_stem", "readlink", "hardlink_to"),
    *("waitstatus_to_exitcode", "pidfd_open", "lcm", "nextafter", "randbytes", "to_thread"),
    *("bit_count", "pairwise", "packages_distributions", "batched", "walk", "is_junction"),
}
CACHE_FREE = {"functools": {"cache"}, "itertools": {"pairwise", "batched"}, "math": {"lcm"}}
NOT_IN_3_8 = {"tomllib", "zoneinfo", "graphlib"}


def sources() -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(archive.build())) as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def evaluated(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run: no annotation, nothing that is there for the type checker alone."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST):
                continue
            checked = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not checked:
                yield node
                yield from evaluated(node)


def test_it_holds_the_agent_and_nothing_else() -> None:
    names = set(sources())
    folder = Path(archive.__file__).parents[1] / "profiler"
    profiler = {f"edgeprune/profiler/{path.name}" for path in folder.glob("*.py")}
    assert names == profiler | {"__main__.py", "edgeprune/__init__.py", "edgeprune/errors.py"}


def test_it_is_the_same_whoever_builds_it(tmp_path: Path) -> None:
    code = (
        "import sys; from edgeprune.device.archive import build; sys.stdout.buffer.write(build())"
    )
    copy = tmp_path / "edgeprune"
    shutil.copytree(Path(archive.__file__).parents[1], copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    built = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    ).stdout
    assert hashlib.sha256(built).hexdigest()[:12] in archive.name()
    assert built == archive.build()


def test_its_name_has_its_hash() -> None:
    short = hashlib.sha256(archive.build()).hexdigest()[:12]
    assert archive.name() == f"edgeprune-agent-{short}.pyz"


@pytest.mark.parametrize("name", sorted(sources()))
def test_every_file_is_python_3_8(name: str) -> None:
    tree = ast.parse(sources()[name], feature_version=(3, 8))
    for node in evaluated(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "os.walk":
            assert node.attr not in LATER, f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Import):
            assert not NOT_IN_3_8 & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in NOT_IN_3_8
            later = CACHE_FREE.get(node.module or "", set())
            assert not later & {alias.name for alias in node.names}
        if isinstance(node, ast.Subscript):  # list[int] as a value: 3.9
            generic = ast.unparse(node.value)
            assert generic not in ("list", "dict", "tuple", "set", "type", "Callable", "Sequence")
        if isinstance(node, ast.With):  # a with in parentheses: 3.9, which the parser lets through
            text = sources()[name].splitlines()[node.lineno - 1].strip()
            assert not text.startswith("with (")
        if isinstance(node, ast.Call):
            keywords = {keyword.arg for keyword in node.keywords}
            assert "strict" not in keywords or ast.unparse(node.func) != "zip"
            assert not {"slots", "kw_only"} & keywords
        if isinstance(node, ast.FunctionDef):
            assert {"functools.cache"}.isdisjoint(map(ast.unparse, node.decorator_list))


def test_the_check_can_fail() -> None:
    bad = "x = list[int]\nfor a in zip(b, c, strict=True): pass\n"
    kinds = [type(node) for node in evaluated(ast.parse(bad))]
    assert ast.Subscript in kinds
    fine = "def f(x: list[int]) -> dict[str, int]:\n    y: list[int] = []\n"
    assert ast.Subscript not in [type(node) for node in evaluated(ast.parse(fine))]


def interpreter(version: str) -> str | None:
    """A Python of this version: on the PATH, or of pyenv."""
    kept = Path.home().glob(f".pyenv/versions/{version}*/bin/python")
    for program in [shutil.which(f"python{version}"), *map(str, sorted(kept))]:
        if program and not subprocess.run([program, "-c", ""], capture_output=True).returncode:
            return program
    return None


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.10", "3.12", "3.13", "3.14"])
def test_other_pythons_run_it(tmp_path: Path, version: str) -> None:
    program = interpreter(version)
    if program is None:
        pytest.skip(f"no Python {version} here (pyenv install {version}): only read, not run")
    path = tmp_path / archive.name()
    path.write_bytes(archive.build())
    done = subprocess.run(
        [program, path, "probe"], capture_output=True, cwd=tmp_path, timeout=60, check=False
    )
    answer = json.loads(done.stdout)
    if version == "3.6":
        assert done.returncode == answer["exit_code"] == 2
        assert "Python 3.6 is too old for the agent" in answer["error"]
        return
    assert done.returncode == 0, done.stderr
    assert answer["agent"] == __version__
    assert answer["result"]["python"].startswith(version)
