# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket``: plans that hold, options that would do nothing, and broken numbers."""

from pathlib import Path

import pytest
import torch

from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Ticket, look, write_ticket
from edgeprune.model import Event, capture, read, save
from tests.e2e.test_bad_input import refused
from tests.e2e.test_ticket import BRIEF, DATA, call, data_of
from tests.networks import digits_cnn

FINDS = ("snip", "grasp", "synflow", "ntk-sap", "random")


@pytest.mark.parametrize(
    ("method", "criterion", "looks"),
    [
        ("gradual", "fisher", 16 * 4),
        ("gradual", "saliency", 16 * 4),
        ("gradual", "movement", 0),
        ("gradual", "random", 0),
        ("one-shot", "fisher", 16),
        ("one-shot", "saliency", 16),
        ("one-shot", "movement", 0),
    ],
)
def test_the_plan_counts_what_a_criterion_looks_at(
    method: str,
    criterion: str,
    looks: int,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, out = tmp_path / "t.toml", tmp_path / "t.safetensors"
    # Of the 6 steps it changes after 2, 3, 4 and 5.
    recipe.write_text("[gradual]\nbegin = 0.2\nend = 0.8\nevery = 1\n" * (method == "gradual"))
    given = ("find", digits_pt2, "-m", method, *DATA, *BRIEF, "--recipe", recipe, "-o", out)
    if looks:
        given = (*given, "--samples", "16")
    planned = data_of(capsys, *given, "--criterion", criterion, "--dry-run")
    done = data_of(capsys, *given, "--criterion", criterion)
    trained, seen = sum(phase["cost"] == 1 for phase in planned["phases"]), done["figures"]
    assert planned["cost"] == pytest.approx(trained + looks / planned["samples"]["train"])
    # What is done beside it: a forward pass, a third of a gradient, over the held-out part.
    held_out = trained * planned["samples"]["holdout"] / planned["samples"]["train"] / 3
    assert seen["cost"]["value"] == pytest.approx(planned["cost"] + held_out)


def test_the_plan_of_what_trains_nothing(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("find", digits_pt2, "-m", "one-shot", "--dry-run", "-o", tmp_path / "t.safetensors")
    assert data_of(capsys, *given)["cost"] == 0
    looks = data_of(capsys, *given, *DATA, "--epochs", "0", "--criterion", "fisher")
    assert looks["cost"] is None  # in trainings of no epoch it can't be told
    assert "on 180 training samples once" in looks["phases"][0]["text"]


@pytest.mark.parametrize(
    "options",
    [
        *(("-m", method, "--pattern", "2:4") for method in (*FINDS, "gradual", "one-shot", "imp")),
        ("-m", "rigl", "--epochs", "0"),
        ("-m", "set", "--epochs", "0"),
        ("-m", "gradual", "--epochs", "0"),
        ("-m", "early-bird", "--alloc", "erk"),
        ("-m", "one-shot", "--criterion", "movement", "--epochs", "0"),
        ("-m", "random", "--pattern", "1:4", "--exclude", "conv1*", "--density", "0.5"),
    ],
)
def test_a_dry_run_refuses_what_finding_refuses(
    options: tuple[str, ...],
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "t.safetensors")
    given = ["ticket", "find", str(digits_pt2), *DATA, *options, "-o", out]
    line = refused([*given, "--dry-run"], tmp_path, capsys)
    assert refused(given, tmp_path, capsys) == line


def test_a_dry_run_asks_for_data_as_finding_does(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "t.safetensors")
    given = ["ticket", "find", str(digits_pt2), "-m", "one-shot", "--criterion", "fisher"]
    line = refused([*given, "-o", out, "--dry-run"], tmp_path, capsys)
    assert "one-shot needs --data" in line
    assert refused([*given, "-o", out], tmp_path, capsys) == line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("-m", "one-shot", *DATA, "--samples", "7"),
            "--samples: isn't used by one-shot with criterion magnitude, only with fisher or "
            "saliency; leave it out",
        ),
        (
            ("-m", "snip", *DATA, "--pattern", "2:4", "--exclude", "conv1*", "--iterations", "5"),
            "--iterations: isn't used by snip with pattern 2:4, which takes one step; leave it out",
        ),
        (
            ("-m", "one-shot", "--lr", "3", "--batch-size", "5"),
            "--lr: isn't used by one-shot without --data, as nothing is trained then; leave it out",
        ),
        (("-m", "one-shot", "--epochs", "3"), "--epochs: isn't used by one-shot without --data"),
    ],
)
def test_options_that_would_do_nothing(
    options: tuple[str, ...],
    says: str,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["ticket", "find", str(digits_pt2), *options, "-o", str(tmp_path / "t.safetensors")]
    assert says in refused(given, tmp_path, capsys)


def test_a_pattern_says_that_it_took_one_step(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("find", digits_pt2, "--pattern", "2:4", "--exclude", "conv1*", "--threads", "1")
    report = data_of(capsys, *given, "-m", "synflow", "-o", tmp_path / "s.safetensors")
    assert "scored once: with a pattern N:M all weights go in one step" in report["notes"]
    assert "at_init.iterations" not in report["options"]
    report = data_of(capsys, *given, "-m", "random", "-o", tmp_path / "r.safetensors")
    assert not any("scored" in note for note in report["notes"])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model with a weight that is NaN."""
    torch.manual_seed(0)
    net = digits_cnn()
    with torch.no_grad():
        net.get_parameter("conv2.weight").view(-1)[0] = torch.nan
    save(capture(net, (torch.zeros(2, 1, 8, 8),), event=Event("test"))[0], tmp_path / "nan.pt2")
    return tmp_path / "nan.pt2"


def test_no_kernel_of_weights_that_are_no_numbers(
    broken: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["ticket", "ntk", str(broken), *DATA, "--samples", "4"], tmp_path, capsys)
    assert "'conv2.weight' holds 1 NaN of 2304 values" in line
    model, path = read(digits_pt2), tmp_path / "t.safetensors"
    keep = {n.name: torch.ones(n.shape, dtype=torch.bool) for n in look(model).layers}
    start = read_state(model.module())
    start["head.bias"][0] = torch.inf  # no mask covers it: only the model tells it from a buffer
    write_ticket(path, Ticket(Mask(keep, About("imp")), start))
    given = ["ticket", "ntk", str(digits_pt2), str(path), *DATA, "--samples", "4", "--start"]
    line = refused(given, tmp_path, capsys)
    assert "hold NaN or infinity, in 'head.bias'" in line


def test_a_mask_of_a_buffer_is_refused(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.safetensors"
    keep = {"bn1.running_mean": torch.ones(16, dtype=torch.bool)}
    write_ticket(path, Ticket(Mask(keep, About("by hand"))))
    for given in (
        ["ticket", "ntk", str(digits_pt2), str(path), *DATA, "--samples", "4"],
        ["prune", str(digits_pt2), "--ticket", str(path), "-o", str(tmp_path / "p.pt2")],
    ):
        assert "no parameter 'bn1.running_mean'" in refused(given, tmp_path, capsys)


def test_a_ticket_whose_header_was_edited(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.safetensors"
    call(capsys, "find", digits_pt2, "-m", "random", "--threads", "1", "-o", path)
    content = path.read_bytes()
    for old, new in ((rb"\"random\"", rb"\"rand0m\""), (rb"\"seed\": 0", rb"\"seed\": 7")):
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        given = ["ticket", "apply", str(digits_pt2), str(path)]
        line = refused(given, tmp_path, capsys)
        assert "damaged: header or tensors aren't those that were written" in line
