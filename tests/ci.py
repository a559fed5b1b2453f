# SPDX-License-Identifier: Apache-2.0
"""Runs the CI pieces' own shell steps, as the services' runners do, without the services."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"
GITLAB = ROOT / "ci" / "gitlab.yml"

_INPUT = re.compile(r"\$\{\{ inputs\.([a-z-]+) \}\}")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def with_edgeprune(folder: Path) -> dict[str, str]:
    """An environment whose ``edgeprune`` is this tree's: what the pieces' pip step would bring."""
    place = folder / "bin"
    place.mkdir(parents=True, exist_ok=True)
    command = place / "edgeprune"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgeprune "$@"\n')
    command.chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Ran:
    """What a step or a job left."""

    code: int
    log: str
    outputs: Mapping[str, str]
    summary: str


def run_action(workspace: Path, runner: Path, **inputs: str) -> Ran:
    """The action's steps after ``install``, one by one, with a runner's files and variables."""
    action = load(ACTION)
    given = {key: str(spec.get("default", "")) for key, spec in action["inputs"].items()}
    given |= {key.replace("_", "-"): value for key, value in inputs.items()}
    assert set(given) == set(action["inputs"]), "an input that the action hasn't"
    files = {name: runner / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    runner.mkdir(parents=True, exist_ok=True)
    for file in files.values():
        file.write_text("")
    log, code = "", 0
    for step in action["runs"]["steps"]:
        if step["id"] in ("python", "install"):
            continue
        script = runner / "step.sh"
        script.write_text(step["run"])
        own = {key: _filled(value, given) for key, value in step["env"].items()}
        service = {"RUNNER_TEMP": str(runner), "GITHUB_WORKSPACE": str(workspace)}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=workspace,
            env=with_edgeprune(runner) | service | {k: str(v) for k, v in files.items()} | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=240,
        )
        log, code = log + done.stdout, done.returncode
        if code:
            break
    written = files["GITHUB_OUTPUT"].read_text().splitlines()
    outputs = dict(line.split("=", 1) for line in written)
    return Ran(code, log, outputs, files["GITHUB_STEP_SUMMARY"].read_text())


def _filled(value: str, given: Mapping[str, str]) -> str:
    """An expression's value, as the runner puts it into a variable."""
    match = _INPUT.fullmatch(value)
    assert match is not None, f"no plain input: {value}"
    return given[match[1]]


def obeyed(log: str) -> list[str]:
    """The lines of a log that a GitHub runner carries out: commands, where none are stopped."""
    found, until = [], None
    for line in log.splitlines():
        text = line.strip()
        if until is not None:
            until = None if text == f"::{until}::" else until
        elif text.startswith("::stop-commands::"):
            until = text.removeprefix("::stop-commands::")
        elif text.startswith("::") or "##[" in text:
            found.append(text)
    return found


def run_gitlab(workspace: Path, runner: Path, **variables: str) -> Ran:
    """The job's script in one shell, as a GitLab runner strings its lines together."""
    job = load(GITLAB)["edgeprune"]
    script = "\n".join(["set -eo pipefail", *job["script"]])
    own = {**job["variables"], **variables, "CI_PROJECT_DIR": str(workspace)}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=workspace,
        env=with_edgeprune(runner) | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return Ran(done.returncode, done.stdout, {}, "")
