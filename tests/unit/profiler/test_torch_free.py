# SPDX-License-Identifier: Apache-2.0
"""What runs where there is no torch must not reach it; what runs on boards, not even pydantic."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "torchao", "litert_torch", "onnx", "onnxscript", "scipy")
ON_BOARDS = sorted(
    path.stem
    for path in (ROOT / "edgeprune" / "profiler").glob("*.py")
    if not path.stem.startswith("__")
)


def imports(modules: list[str], blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"for name in {modules!r}: importlib.import_module(name)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


def modules_of(*rooms: str) -> list[str]:
    found = []
    for room in rooms:
        place = ROOT / "edgeprune" / room
        paths = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        for path in sorted(paths):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(name.removesuffix(".__init__"))
    return found


def test_the_torch_free_rooms_import_without_torch() -> None:
    rooms = ("profiler", "gate", "report", "target", "recipe", "figure", "errors", "units", "toml")
    modules = modules_of(*rooms, "progress")
    assert len(modules) > 20
    done = imports(modules, HEAVY)
    assert done.returncode == 0, done.stderr


def test_what_runs_on_boards_imports_without_pydantic_or_a_runtime() -> None:
    modules = [f"edgeprune.profiler.{name}" for name in ON_BOARDS]
    blocked = (*HEAVY, "pydantic", "rich", "typer", "onnxruntime", "ai_edge_litert")
    done = imports(modules, blocked)
    assert done.returncode == 0, done.stderr


def test_the_check_can_fail() -> None:
    assert imports(["edgeprune.figure"], ("pydantic",)).returncode != 0


@pytest.mark.parametrize("name", ON_BOARDS)
def test_what_runs_on_boards_is_python_3_8(name: str) -> None:
    import ast

    source = (ROOT / "edgeprune" / "profiler" / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    first = tree.body[1]
    assert isinstance(first, ast.ImportFrom)
    assert first.module == "__future__"  # annotations of newer Pythons are never evaluated
