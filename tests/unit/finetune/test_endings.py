# SPDX-License-Identifier: Apache-2.0
"""Networks that end in softmax or sigmoid, and networks of several outputs, are trained as such."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.evaluate import Judge
from edgeprune.finetune import finetune
from edgeprune.model import Model, runner
from edgeprune.recipe import FinetuneOptions
from edgeprune.tasks import endings
from tests.networks import DigitsCnn
from tests.unit.finetune.toy import captured, context, data

OPTIONS = FinetuneOptions(epochs=6, batch_size=16, learning_rate=0.1)


class Ended(nn.Module):
    """The digits network, and how it ends."""

    def __init__(self, end: str, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.end = DigitsCnn(width), end

    def forward(self, x: Tensor) -> Tensor:
        scores = self.net(x)
        if self.end == "softmax":
            return scores.softmax(1)
        if self.end == "log_softmax":
            return F.log_softmax(scores, 1)
        return scores.sigmoid().contiguous() if self.end == "sigmoid" else scores


def trained(end: str, folder: Path) -> tuple[Model, float]:
    """From labels alone; with its accuracy."""
    model = captured(Ended(end).eval(), torch.zeros(2, 1, 8, 8))
    new, _ = finetune(model, OPTIONS, context(folder / end, data=data()))
    judge = Judge(data(), runner(new), endings=endings(new))
    figure = judge.dense()
    assert figure is not None
    return new, figure.value


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, float]:
    return trained("none", tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("end", ["softmax", "log_softmax"])
def test_probabilities_are_trained_as_their_logits(
    tmp_path: Path, plain: tuple[Model, float], end: str
) -> None:
    model, score = trained(end, tmp_path)
    assert score == plain[1]
    for name, weight in plain[0].program.state_dict.items():
        torch.testing.assert_close(model.program.state_dict[name], weight, rtol=1e-3, atol=1e-4)


def test_a_sigmoid_learns_what_logits_learn(tmp_path: Path, plain: tuple[Model, float]) -> None:
    _, score = trained("sigmoid", tmp_path)
    assert score >= plain[1] - 10  # binary cross-entropy alone: 37 where logits have 79


class Face(nn.Module):
    """A box, landmarks in pixels, and the probability that there is a face."""

    def __init__(self, width: int, end: str) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.body, self.end = nn.Linear(6, width), end
        self.box, self.marks = nn.Linear(width, 4), nn.Linear(width, 10)
        self.score = nn.Linear(width, 2 if end == "softmax" else 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.body(x).relu()
        score = self.score(y)
        probability = score.softmax(1) if self.end == "softmax" else score.sigmoid()
        return self.box(y), 320 * self.marks(y), probability


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_all_outputs_are_distilled(tmp_path: Path, end: str) -> None:
    dense = captured(Face(16, end).eval(), torch.zeros(2, 6))
    student = captured(Face(12, end).eval(), torch.zeros(2, 6))
    options = FinetuneOptions(epochs=60, batch_size=8, optimizer="adamw", learning_rate=0.02)
    given = data("vectors")
    new, report = finetune(student, options, context(tmp_path, data=given, dense=dense))
    assert "KL divergence" in report.details["loss"].split("; ")[2]
    judge = Judge(given, runner(dense), endings=endings(dense))
    assert judge.metric == "fidelity to the dense model"
    before, after = judge.score(runner(student)).value, judge.score(runner(new)).value
    assert before < 0
    assert after > 60  # of the worst output
