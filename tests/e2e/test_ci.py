# SPDX-License-Identifier: Apache-2.0
"""The action, the GitLab job and the hook judge models, with hostile input too."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeprune.cli.main import main
from tests.ci import ACTION, GITLAB, ROOT, load, obeyed, run_action, run_gitlab, with_edgeprune
from tests.model_files import quantized, save

HOOKS = ROOT / ".pre-commit-hooks.yaml"

QUOTES = "' ; touch sprung ; ' \" ; touch sprung ; \" ; touch sprung #"
LINES = "a b\n::error::x\n$(touch sprung)\n`touch sprung`"
OPTION = "--output=sprung"


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a project in a folder of it: a model of some 400 B, 2 kB allowed."""
    folder = tmp_path / "work space" / "mo'dels $HOME"
    folder.mkdir(parents=True)
    save(folder / "kws.onnx", quantized())
    monkeypatch.chdir(folder)
    assert main(["init", "--artifacts", "kws.onnx", "--target", "rpi4", "--max-size", "2kB"]) == 0
    assert main(["baseline", "accept", "--reason", "first"]) == 0
    return folder


def tighten(team: Path) -> None:
    file = team / "edgeprune.toml"
    file.write_text(file.read_text().replace('"2kB"', '"100B"'))


def tool(name: str) -> str:
    """A program of the development environment."""
    place = Path(sys.executable).with_name(name)
    if not place.exists():
        pytest.skip(f"{name} isn't installed: pip install 'edgeprune[dev]'")
    return str(place)


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", GITLAB)],
    ids=["action", "gitlab"],
)
def test_the_services_schemas_hold(schema: str, file: Path) -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_manifest_of_hooks_is_one() -> None:
    command = [tool("pre-commit"), "validate-manifest", str(HOOKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def steps() -> list[dict[str, Any]]:
    return list(load(ACTION)["runs"]["steps"])


def test_no_input_stands_in_a_script() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert len(scripts) == 2
    assert all("${{" not in script for script in scripts)


def test_others_actions_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)


def test_each_input_is_used_and_told() -> None:
    text = ACTION.read_text()
    for name, spec in load(ACTION)["inputs"].items():
        assert f"${{{{ inputs.{name} }}}}" in text
        assert spec["description"]


def test_what_keeps_its_limits_passes(team: Path, tmp_path: Path) -> None:
    ran = run_action(team.parent, tmp_path / "runner", project=team.name)
    assert ran.code == 0, ran.log
    assert ran.outputs["result"] == "passed"
    assert json.loads(Path(ran.outputs["report"]).read_text())["judged"]
    assert "kws.onnx" in ran.summary
    assert not any(line.startswith("::error") for line in obeyed(ran.log))


def test_a_broken_limit_fails_and_is_told_at_its_line(team: Path, tmp_path: Path) -> None:
    tighten(team)
    ran = run_action(
        team.parent,
        tmp_path / "runner",
        project=team.name,
        format="sarif",
        output="a b/../edgeprune $x.sarif",
    )
    # The folder of the output isn't there: the verdict isn't lost, nor is the mistake.
    assert (ran.code, ran.outputs["result"]) == (2, "error")
    ran = run_action(
        team.parent,
        tmp_path / "runner",
        project=team.name,
        format="sarif",
        output="edgeprune $x.sarif",
    )
    assert ran.code == 1, ran.log
    assert ran.outputs["result"] == "failed"
    (error,) = [line for line in obeyed(ran.log) if line.startswith("::error")]
    line = (team / "edgeprune.toml").read_text().splitlines().index('size = "100B"') + 1
    assert error.startswith(f"::error file={team.name}/edgeprune.toml,line={line},")
    assert "over the limit of 100 B" in ran.summary
    found = json.loads((team.parent / "edgeprune $x.sarif").read_text())
    places = json.dumps(found["runs"][0]["results"])
    assert "mo%27dels%20%24HOME/edgeprune.toml" in places


def test_files_are_named_one_a_line(team: Path, tmp_path: Path) -> None:
    shutil.copy(team / "kws.onnx", team / "a b;c.onnx")
    ran = run_action(
        team,
        tmp_path / "runner",
        paths="a b;c.onnx\n\nkws.onnx\n",
        target="rpi4\nhost",
        max_size="150B",
        allow_unmeasured="true",
        strict="true",
    )
    assert ran.code == 1, ran.log
    report = json.loads(Path(ran.outputs["report"]).read_text())
    assert {each["artifact"] for each in report["judged"]} == {"a b;c.onnx", "kws.onnx"}
    assert report["strict"] is True
    assert {each["limit"] for each in report["judged"] if each["rule"] == "budget/size"} == {150}


@pytest.mark.parametrize("value", [QUOTES, LINES, OPTION, "-rf *", "\n"])
@pytest.mark.parametrize("name", ["paths", "project"])
def test_no_input_becomes_a_command(team: Path, tmp_path: Path, name: str, value: str) -> None:
    before = sorted(path.name for path in team.iterdir())
    ran = run_action(team, tmp_path / "runner", **{name: value})
    blank = not value.strip() and name != "project"
    assert ran.code == (0 if blank else 2), ran.log
    assert ran.outputs["result"] == ("passed" if blank else "error")
    assert sorted(path.name for path in team.iterdir()) == before
    assert all(re.match("::(error|warning|notice) ", line) for line in obeyed(ran.log))
    assert "::error::x" not in obeyed(ran.log)


@pytest.mark.parametrize(
    "name",
    ["target", "strict", "allow-unmeasured", "measure", "max-size", "time-limit", "format"],
)
def test_no_option_becomes_a_command(team: Path, tmp_path: Path, name: str) -> None:
    before = sorted(path.name for path in team.iterdir())
    ran = run_action(team, tmp_path / "runner", **{name: f"{QUOTES}\n{LINES}"})
    assert (ran.code, ran.outputs["result"]) == (2, "error")
    assert sorted(path.name for path in team.iterdir()) == before
    assert "::error::x" not in obeyed(ran.log)


def test_a_hostile_model_gives_the_runner_no_order(team: Path, tmp_path: Path) -> None:
    name = "x\n::error::owned\n##[error]owned.onnx"
    shutil.copy(team / "kws.onnx", team / name)
    ran = run_action(team, tmp_path / "runner", paths=".", max_size="100B")
    assert ran.code == 1, ran.log
    orders = obeyed(ran.log)
    assert len(orders) >= 2
    assert all(re.match("::(error|warning|notice) ", line) for line in orders)
    assert not any(line.startswith("::error::") for line in orders)


def test_the_gitlab_job_reports_what_it_found(team: Path, tmp_path: Path) -> None:
    tighten(team)
    workspace = team.parent
    ran = run_gitlab(
        workspace, tmp_path / "runner", EDGEPRUNE_PROJECT=team.name, EDGEPRUNE_OPTIONS="--strict"
    )
    assert ran.code == 1, ran.log
    assert "over the limit of 100 B" in " ".join(ran.log.split())
    reports = load(GITLAB)["edgeprune"]["artifacts"]["reports"]
    quality = json.loads((workspace / reports["codequality"]).read_text())
    assert f"{team.name}/edgeprune.toml" in {each["location"]["path"] for each in quality}
    assert "<failure" in (workspace / reports["junit"]).read_text()
    shutil.rmtree(tmp_path / "runner")
    ran = run_gitlab(
        workspace, tmp_path / "runner", EDGEPRUNE_PROJECT=team.name,
        EDGEPRUNE_OPTIONS="--max-size 1MB $(touch sprung) *",
    )  # fmt: skip
    assert ran.code == 2, ran.log
    assert not list(workspace.rglob("sprung"))


def test_the_hook_judges_the_files_that_change(team: Path, tmp_path: Path) -> None:
    """Its entry as pre-commit runs it: the words of the entry, the user's, and the files."""
    (hook,) = load(HOOKS)
    assert re.search(hook["files"], "a/b c.onnx")
    assert re.search(hook["files"], "x.tflite")
    assert not re.search(hook["files"], "x.onnx.json")
    for limit, code in (([], 0), (["--max-size=100B"], 1)):
        done = subprocess.run(
            [*hook["entry"].split(), *limit, "kws.onnx"],
            cwd=team,
            env=with_edgeprune(tmp_path / "runner"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "budget/size" in done.stdout


@pytest.mark.slow
def test_pre_commit_installs_and_runs_the_hook(team: Path, tmp_path: Path) -> None:
    """Really: pre-commit clones this tree, builds it, installs it, and runs the hook on commit."""
    copy, cache = tmp_path / "edgeprune", tmp_path / "cache"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-coz", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this tree is no git repository, which pre-commit needs: git clone it")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    environ = {
        **with_edgeprune(tmp_path / "runner"),
        "PRE_COMMIT_HOME": str(cache),
        "PATH": f"{Path(tool('pre-commit')).parent}:/usr/bin:/bin",
        **{f"GIT_{who}_{key}": "t@example.org" for who in ("AUTHOR", "COMMITTER")
           for key in ("NAME", "EMAIL")},
    }  # fmt: skip
    del environ["PYTHONPATH"]  # what the hook runs is what it installed

    def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=500
        )

    for place in (copy, team):
        run("git", "init", "-q", cwd=place)
        run("git", "add", "-A", cwd=place)
    assert run("git", "commit", "-qm", "all", cwd=copy).returncode == 0
    tried = ("pre-commit", "try-repo", str(copy), "edgeprune-size", "--all-files", "--verbose")
    done = run(*tried, cwd=team)
    if "Could not fetch" in done.stdout or "No matching distribution" in done.stdout:
        pytest.skip("no package index can be reached; pre-commit installs the hook from one")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "budget/size" in done.stdout
    tighten(team)
    run("git", "add", "-A", cwd=team)
    done = run(*tried, cwd=team)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "over the limit of 100 B" in " ".join(done.stdout.split())


def of_the_readme(key: str) -> Any:
    """The one piece of YAML in the README that has this key."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pieces = [yaml.safe_load(piece) for piece in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    (found,) = [piece for piece in pieces if key in piece]
    return found


def test_the_readmes_workflow_gives_inputs_that_there_are(tmp_path: Path) -> None:
    workflow = of_the_readme("jobs")
    file = tmp_path / "workflow.yml"
    workflow["on"] = workflow.pop(True)  # YAML 1.1 takes the key for a boolean
    file.write_text(yaml.safe_dump(workflow))
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
    given = workflow["jobs"]["models"]["steps"][-1]["with"]
    assert set(given) <= set(load(ACTION)["inputs"])


def test_the_readmes_hook_is_there(tmp_path: Path) -> None:
    (repository,) = of_the_readme("repos")["repos"]
    assert {hook["id"] for hook in repository["hooks"]} == {hook["id"] for hook in load(HOOKS)}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(of_the_readme("repos")))
    command = [tool("pre-commit"), "validate-config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
