# SPDX-License-Identifier: Apache-2.0
"""The rules that hold for the whole tree, each checked by machine."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.data.spec import find_spec
from edgeprune.target import find_operators, find_target

LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"
ROOT = Path(__file__).parents[1]
FILE_LINES = 440
FUNCTION_LINES = 60
SOURCES = sorted((ROOT / "edgeprune").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TORCH_FREE = (
    "edgeprune",
    "edgeprune.check",
    "edgeprune.cli.check",
    "edgeprune.artifact",
    "edgeprune.cli.targets",
    "edgeprune.errors",
    "edgeprune.figure",
    "edgeprune.gate",
    "edgeprune.gate.budgets",
    "edgeprune.profiler",
    "edgeprune.profiler.runtime",
    "edgeprune.progress",
    "edgeprune.recipe",
    "edgeprune.report",
    "edgeprune.report.schema",
    "edgeprune.target",
    "edgeprune.toml",
    "edgeprune.units",
)
HEAVY = ("torch", "torchao", "onnx", "onnxscript", "onnxruntime", "scipy", "litert_torch")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, Any]]:
    """Every syntax node of some kinds in the package, with its file."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield path, node


def first_line(path: Path, function: Any) -> int:
    return int(function.body[0].lineno if "cli" in path.parts else function.lineno)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a fresh interpreter that finds edgeprune in this tree."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def without(packages: tuple[str, ...]) -> str:
    """Code that makes ``import`` of the packages fail."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"


def test_files_stay_readable() -> None:
    lengths = {name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES} == {}


def test_functions_stay_readable() -> None:
    """A command's parameters are its options with their help, so only its body counts."""
    long = [
        f"{name(path)}: {node.name} has {lines} lines"
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if (lines := node.end_lineno - first_line(path, node) + 1) > FUNCTION_LINES
    ]
    assert long == []


def test_each_file_states_its_licence() -> None:
    texts = {name(path): path.read_text(encoding="utf-8") for path in SOURCES + TESTS}
    silent = [path for path, text in texts.items() if text and not text.startswith(LICENCE)]
    assert silent == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{name(path)}, line {node.lineno}" for path, node in nodes(ast.ImportFrom) if node.level
    ]
    assert relative == []


_PROGRAMS = {"cli", "profiler", "device"}


def test_the_environment_is_read_by_the_command_line_only() -> None:
    """And by the agent, a program of its own, and by what starts programs and hands it on."""
    reads = [
        f"{name(path)}, line {node.lineno}"
        for path, node in nodes(ast.Attribute)
        if node.attr in ("getenv", "environ") and not _PROGRAMS & set(path.parts)
    ]
    assert reads == []


@pytest.mark.parametrize("path", sorted((ROOT / "targets").glob("*.toml")), ids=name)
def test_each_target_loads(path: Path) -> None:
    assert find_target(str(path)).name == path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "targets" / "operators").iterdir()), ids=name)
def test_each_list_of_operators_loads(path: Path) -> None:
    assert find_operators(path.stem)


@pytest.mark.parametrize("path", sorted((ROOT / "calibration").iterdir()), ids=name)
def test_each_data_spec_loads(path: Path) -> None:
    assert find_spec(str(path)).name == path.stem


def test_imports_run_downwards() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    command = [str(tool), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_torch_free_rooms_import_without_the_heavy_packages() -> None:
    result = run_python(f"{without(HEAVY)}import {', '.join(TORCH_FREE)}")
    assert result.returncode == 0, result.stderr


def test_the_measuring_process_needs_nothing_but_numpy() -> None:
    blocked = (*HEAVY, "pydantic", "typer", "rich", "ai_edge_litert")
    result = run_python(f"{without(blocked)}import edgeprune.profiler.worker")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["targets", "list"]], ids=" ".join
)
def test_the_command_line_answers_without_the_heavy_packages(arguments: list[str]) -> None:
    code = f"{without(HEAVY)}from edgeprune.cli.main import main\nsys.exit(main({arguments!r}))"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
