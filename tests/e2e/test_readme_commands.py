# SPDX-License-Identifier: Apache-2.0
"""Every command of the README is run, in order, as a user would, beside their own files."""

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.e2e.support import QUICK, environment
from tests.sshd import needs_sshd, sshd
from tests.test_readme import code, of

MYNET = """
from pathlib import Path
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, weights="weights.pt"):
        super().__init__(
            nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3),
        )
        if Path(weights).exists():
            self.load_state_dict(torch.load(weights))
"""
COLOURS = {"blue": (30, 40, 220), "green": (30, 200, 40), "red": (220, 30, 40)}


def photos(folder: Path) -> None:
    """Noisy pictures of three colours, 200 of each."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(200):
            pixels = np.asarray(colour) + random.normal(0, 25, (32, 32, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{i}.png")


def train(folder: Path) -> None:
    """Train the user's network on what its pictures look like, and save its weights."""
    from edgeprune.data import open_data

    namespace: dict[str, object] = {}
    exec(MYNET, namespace)
    torch.manual_seed(0)
    net = namespace["Net"]("none")  # type: ignore[operator]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    data = open_data(str(folder / "photos"), seed=0)
    for epoch in range(2):
        for batch in data.train(16, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(net(*batch.inputs), batch.labels).backward()
            optimizer.step()
    torch.save(net.state_dict(), folder / "weights.pt")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "mynet.py").write_text(MYNET)
    (folder / "quick.toml").write_text(QUICK)
    photos(folder / "photos")
    train(folder)
    environ = {**environment(), "PYTHONPATH": os.pathsep.join((environment()["PYTHONPATH"], "."))}
    save = [sys.executable, "-c", code("Your own model")]
    subprocess.run(save, cwd=folder, env=environ, check=True)
    return folder


ONE_PROCESS = ("inspect", "prune", "finetune", "quantize", "export", "ticket")
"""Of these, commands that follow one another share a process: their time is that of importing
torch."""
EACH = """
from edgeprune.cli.main import main
for line in sys.argv[1:]:
    if code := main(shlex.split(line)[1:]):
        sys.exit(f"{line}: exit code {code}")
"""
ONE = "sys.argv[0] = 'edgeprune'; runpy.run_module('edgeprune', run_name='__main__')"


def on_one_core(what: str, *arguments: str) -> list[str]:
    """The command, which takes all cores that it finds, kept off the other test worker's core."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    cores = sorted(os.sched_getaffinity(0))
    core = cores[worker % len(cores)]
    start = f"import os, runpy, shlex, sys; os.sched_setaffinity(0, {{{core}}})\n{what}"
    return [sys.executable, "-c", start, *arguments]


def called(command: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=desk,
        env={**environment(), "XDG_CONFIG_HOME": str(desk / "config")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def run_together(lines: list[str], desk: Path) -> None:
    done = called(on_one_core(EACH, *lines), desk)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run(line: str, desk: Path, *further: str) -> None:
    arguments = shlex.split(line)[1:]
    done = called(on_one_core(ONE, *arguments, *further), desk)
    # A limit that the README's user sets may well be broken by this network, or by this "board".
    judged = {"--max-drop", "--target"} & set(arguments) and "--allow-unmeasured" not in arguments
    broken = arguments[0] == "check" or (judged and arguments[0] in ("compress", "profile"))
    fine = (0, 1) if broken else (0,)
    assert done.returncode in fine, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def commit(desk: Path) -> None:
    """What the reader does with the two files that are to be committed."""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (
        ("init", "-q"),
        ("add", "edgeprune.toml", "edgeprune.lock.json"),
        (*who, "commit", "-qm", "accepted"),
    ):
        subprocess.run(["git", *words], cwd=desk, check=True, timeout=60)


def for_a_board(line: str) -> bool:
    return " board" in line


def test_all_commands_in_order(desk: Path) -> None:
    here = [line for line in of("edgeprune") if not for_a_board(line)]
    for together, group in groupby(here, lambda line: line.split()[1] in ONE_PROCESS):
        if together:
            run_together([*group], desk)
            continue
        for line in group:
            if line.split()[1] == "history":
                commit(desk)
            # To measure as long as by default once, in the first, is enough.
            again = line.split()[1] == "compress" and (desk / "out").exists()
            run(line, desk, *(("--recipe", "quick.toml") if again else ()))
    assert (desk / "out" / "rpi4" / "manifest.json").exists()
    assert (desk / "artifacts" / "model.tflite").exists()


@needs_sshd
@pytest.mark.slow
def test_the_commands_for_a_board(desk: Path, tmp_path: Path) -> None:
    desk = Path(shutil.copytree(desk, tmp_path / "desk"))
    if not (desk / "out" / "rpi4" / "manifest.json").exists():
        run("edgeprune compress model.pt2 --target rpi4 --no-profile --allow-unmeasured", desk)
    with sshd(user=getpass.getuser()) as server:  # who can run this Python
        folder = server.folder / "models"
        for line in filter(for_a_board, of("edgeprune")):
            # The reader's board is this machine, behind ssh, in a folder that it may write.
            line = line.replace("ssh://pi@board", server.address)
            line = line.replace("/opt/models", str(folder))
            add = ("--yes", "--identity", str(server.identity), "--python", sys.executable)
            run(line, desk, *(add if " add " in line else ()))
        assert (folder / "classifier" / "current" / "model.onnx").exists()
