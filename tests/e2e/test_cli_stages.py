# SPDX-License-Identifier: Apache-2.0
"""Each stage as a command over files, and the commands that only look."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune import __version__
from edgeprune.cli.main import main
from edgeprune.model import parameters, read
from tests.e2e.support import ROOT, environment, tree
from tests.networks import digits_cnn
from tests.test_architecture import HEAVY, run_python, without

DATA = ("--data", "digits", "--limit", "200", "--threads", "1")


def test_stage_after_stage_from_file_to_file(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned, tuned = tmp_path / "pruned.pt2", tmp_path / "tuned.pt2"
    small, artifacts = tmp_path / "small.pt2", tmp_path / "artifacts"
    half = ("--ratio", "0.5", "--no-recover")
    assert main(["prune", str(digits_pt2), *half, *DATA, "-o", str(pruned)]) == 0
    assert parameters(read(pruned)) < 0.6 * parameters(read(digits_pt2))

    teacher = ("--teacher", str(digits_pt2), "--epochs", "4", "--batch-size", "16", "--json")
    capsys.readouterr()
    assert main(["finetune", str(pruned), *teacher, *DATA, "-o", str(tuned)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stage"] == "finetune"
    assert report["figures"]["score"]["value"] > 50
    assert read(tuned).fingerprint() != read(pruned).fingerprint()

    assert main(["quantize", str(tuned), *DATA, "-t", "rpi4", "-o", str(small)]) == 0
    assert read(small).numerics == "int8"
    for command in ("prune", "quantize"):
        assert main([command, str(small), *DATA, "-o", str(tmp_path / "again.pt2")]) == 2
        assert "quantized already" in capsys.readouterr().err
    assert main(["compress", str(small), "-t", "rpi4", "-o", str(tmp_path / "out")]) == 2
    assert "quantized already" in capsys.readouterr().err

    options = ("-t", "rpi4", "-o", str(artifacts))
    assert main(["export", str(small), *DATA, *options]) == 0
    assert tree(artifacts) == ["model.onnx", "model.tflite"]
    assert [event.stage for event in read(small).history][-3:] == ["prune", "finetune", "quantize"]

    capsys.readouterr()
    files = [str(artifacts / name) for name in ("model.onnx", "model.tflite")]
    quick = ("--blocks", "2", "--max-blocks", "2", "--block-seconds", "0.02", "--json")
    assert main(["profile", *files, *quick]) == 0
    found = json.loads(capsys.readouterr().out)["files"]
    assert set(found) == {"model.onnx", "model.tflite"}
    for figures in found.values():
        assert figures["latency_p50"]["value"] > 0
    assert tree(tmp_path) == [
        "artifacts",
        "artifacts/model.onnx",
        "artifacts/model.tflite",
        "pruned.pt2",
        "small.pt2",
        "tuned.pt2",
    ]


def test_output_is_replaced_only_when_told(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pruned.pt2"
    out.write_text("precious")
    command = ["prune", str(digits_pt2), "--ratio", "0.5", "-o", str(out)]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert parameters(read(out)) < parameters(read(digits_pt2))


def test_a_state_dict_works_with_its_factory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(digits_cnn().state_dict(), weights)
    options = ("--arch", "tests.networks:digits_cnn", "--input-shape", "1x1x8x8")
    assert main(["inspect", str(weights), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["parameters"] == sum(p.numel() for p in digits_cnn().parameters())


def test_inspect_tells_layers_groups_and_what_is_frozen(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(digits_pt2), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["conv2"]["macs"] == 16 * 16 * 9 * 64
    assert layers["conv2"]["parameters"] == 16 * 16 * 9
    assert layers["conv2"]["shape"] == ["batch", "16", "8", "8"]
    assert sum(layer["parameters"] for layer in found["layers"]) == found["totals"]["parameters"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["totals"]["macs"]
    residual = next(group for group in found["groups"] if ["conv1.weight", 0] in group["members"])
    assert ["conv2.weight", 0] in residual["members"]
    assert residual["channels"] == 16
    assert any(frozen["name"] == "head.weight" and frozen["dim"] == 0 for frozen in found["frozen"])

    assert main(["inspect", str(digits_pt2)]) == 0
    text = capsys.readouterr().out
    assert "conv2" in text
    assert "output" in text


def test_help_answers_at_once_and_without_torch() -> None:
    """What takes long to import isn't: it can't be, here."""
    done = run_python(
        f"{without((*HEAVY, 'numpy', 'PIL'))}from edgeprune.cli.main import main\n"
        "sys.exit(main(['compress', '--help']))"
    )
    assert done.returncode == 0, done.stderr
    assert "--allow-unmeasured" in done.stdout


def test_missing_extra_gives_the_pip_command(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK")
    code = (
        "import sys; sys.modules['torch'] = None; from edgeprune.cli.main import main\n"
        "sys.exit(main(['compress', 'model.pt2', '-t', 'rpi4']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'edgeprune[compress]'" in done.stderr
    assert tree(tmp_path) == ["model.pt2"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"edgeprune {__version__}"


@pytest.mark.parametrize(("place", "code"), [(">/dev/full", 2), (">&-", 0)])
def test_an_output_that_takes_nothing(place: str, code: int) -> None:
    command = f"'{sys.executable}' -m edgeprune targets list {place}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == bool(code)
    assert ("no space left" in done.stderr) == bool(code)


class Grouped(nn.Module):
    """A grouped convolution and an attention: two places where there is a choice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.qkv, self.out = nn.Linear(16, 3 * 4 * 8), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.stem(x).relu()).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).view(x.shape[0], 64, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head((x + self.out(y.transpose(1, 2).flatten(2))).mean(1))


def grouped() -> nn.Module:
    return Grouped()


def test_what_goes_where_there_is_a_choice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(grouped().state_dict(), tmp_path / "w.pt")
    source = (str(tmp_path / "w.pt"), "--arch", "tests.e2e.test_cli_stages:grouped")
    shapes = {}
    for name, options in {
        "standard": (),
        "other": ("--attention", "head_dim", "--grouped", "groups"),
    }.items():
        path = tmp_path / f"{name}.pt2"
        fixed = ("--input-shape", "1x1x8x8", "--ratio", "0.5", "--multiple", "1", "--threads", "1")
        assert main(["prune", *source, *fixed, *options, "-o", str(path)]) == 0
        model = read(path)
        state = model.program.state_dict
        views = [n.args[1] for n in model.program.graph.nodes if "view" in str(n.target)]
        shapes[name] = (tuple(state["grouped.weight"].shape), views[0][2:])
    assert shapes["standard"] == ((8, 2, 3, 3), [3, 2, 8])
    assert shapes["other"] == ((8, 4, 3, 3), [3, 4, 4])
