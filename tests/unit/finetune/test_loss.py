# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.finetune.loss import Objective, bind, decide, outputs_of
from edgeprune.recipe import FinetuneOptions
from edgeprune.tasks import Classes, Kind, Probabilities, Task, Values

SCORES = (torch.zeros(4, 3),)
LABELS = torch.tensor([0, 1, 2, 0])
LABELLED, UNLABELLED = Classes(1, (3,), labelled=True), Classes(1, (3,))
VALUES = Values(np.ones((1, 1)))


def objective(distill: float, *kinds: Kind, temperature: float = 4.0) -> Objective:
    return Objective(kinds, distill, temperature)


class Constant(nn.Module):
    """Gives the same outputs for every input."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, *_inputs):
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs


def batch(count, labels=None):
    return Batch((torch.zeros(count, 1),), labels)


def softmax(row, temperature):
    powers = [math.exp(v / temperature) for v in row]
    return [p / sum(powers) for p in powers]


def test_distillation_is_the_formula_of_hinton():
    student, teacher = [[1.0, 2.0, -1.0], [0.5, 0.0, 0.0]], [[3.0, 0.0, 1.0], [0.0, 1.0, 2.0]]
    labels, weight, t = [1, 2], 0.3, 4.0
    expected = 0.0
    for s, q, label in zip(student, teacher, labels, strict=True):
        pairs = zip(softmax(s, t), softmax(q, t), strict=True)
        soft = sum(b * (math.log(b) - math.log(a)) for a, b in pairs)
        expected += (weight * t**2 * soft - (1 - weight) * math.log(softmax(s, 1)[label])) / 2
    loss = bind(objective(weight, LABELLED, temperature=t), Constant(torch.tensor(teacher)), None)
    score = loss(Constant(torch.tensor(student)), batch(2, torch.tensor(labels)))
    assert score.loss.item() == pytest.approx(expected, rel=1e-6)
    assert (score.samples, score.right, score.judged) == (2, 1, 2)


def test_labels_alone_never_run_the_teacher():
    class Fails(nn.Module):
        def forward(self, *_inputs):
            raise AssertionError("the teacher ran")

    loss = bind(objective(0.0, LABELLED), Fails(), None)
    assert loss(Constant(SCORES[0]), batch(4, LABELS)).loss.item() == pytest.approx(math.log(3))


def test_without_labels_right_is_what_the_teacher_says():
    loss = bind(objective(1.0, UNLABELLED, temperature=2.0), Constant(torch.eye(3)), None)
    score = loss(Constant(torch.tensor([[5.0, 0, 0], [5.0, 0, 0], [0, 0, 5.0]])), batch(3))
    assert (score.right, score.judged) == (2, 3)


def test_outputs_without_classes_are_matched_all_of_them():
    student = (torch.ones(2, 3, 4), torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    teacher = (torch.full((2, 3, 4), 3.0), torch.ones(2, 5), torch.ones(2, dtype=torch.long))
    map_ = Values(np.full((1, 1, 1), 16.0))
    kinds = objective(1.0, map_, VALUES, Classes(None))
    score = bind(kinds, Constant(*teacher), None)(Constant(*student), batch(2))
    assert score.loss.item() == pytest.approx(4.0 / 16 + 1.0)
    assert score.judged == 0


def test_probabilities_are_told_apart_from_logits():
    """Binary cross-entropy to labels: of one output that is yes or no; of single classes its mean
    with the cross-entropy."""
    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), [0, 1]
    loss = bind(objective(0.0, Probabilities(VALUES, "index")), None, None)
    score = loss(Constant(logits), batch(2, torch.tensor(labels)))
    chances = [[1 / (1 + math.exp(-v)) for v in row] for row in logits.tolist()]
    expected = sum(
        -math.log(p if place == label else 1 - p)
        for row, label in zip(chances, labels, strict=True)
        for place, p in enumerate(row)
    )
    expected -= sum(
        math.log(softmax(row, 1)[label]) for row, label in zip(logits.tolist(), labels, strict=True)
    )
    assert score.loss.item() == pytest.approx(expected / 4, rel=1e-6)
    assert (score.right, score.judged) == (1, 2)
    loss = bind(objective(0.0, Probabilities(VALUES, "binary")), None, None)
    score = loss(Constant(logits[:, :1]), batch(2, torch.tensor([1, 0])))
    expected = -math.log(chances[0][0]) - math.log(1 - chances[1][0])
    assert score.loss.item() == pytest.approx(expected / 2, rel=1e-6)
    assert (score.right, score.judged) == (1, 2)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it():
    outputs = torch.randn(4, 3), torch.randn(4, 5, 2), torch.randn(4, 3), torch.randn(4, 1)
    kinds = UNLABELLED, Values(np.ones((1, 1, 1))), Classes(1, (2, 1)), Probabilities(VALUES)
    loss = bind(objective(1.0, *kinds), Constant(*outputs), None)
    assert loss(Constant(*outputs), batch(4)).loss.item() == pytest.approx(0, abs=1e-5)
    for place in range(4):
        other = [o + torch.randn(o.shape) * (place == i) for i, o in enumerate(outputs)]
        assert loss(Constant(*other), batch(4)).loss.item() > 0.01, place


def test_what_labels_are_not_about_is_distilled_beside_them():
    outputs, dense = (SCORES[0], torch.ones(4, 2)), (SCORES[0], torch.zeros(4, 2))
    loss = bind(objective(0.25, LABELLED, VALUES), Constant(*dense), None)
    score = loss(Constant(*outputs), batch(4, LABELS))
    assert score.loss.item() == pytest.approx(0.75 * math.log(3) + 1.0)


def test_options_and_a_missing_teacher_count():
    labelled, unlabelled = Task((LABELLED,)), Task((UNLABELLED,))
    assert decide(labelled, FinetuneOptions(), teacher=True).distill == 0.5
    assert decide(labelled, FinetuneOptions(distill=0.2), teacher=True).distill == 0.2
    alone = decide(labelled, FinetuneOptions(), teacher=False)
    assert alone.distill == 0.0
    assert alone.notes == ("no dense model is given: trained on the labels alone",)
    raised = decide(unlabelled, FinetuneOptions(distill=0.2), teacher=True)
    assert raised.distill == 1.0
    assert raised.notes == ("distill 0.2 taken as 1: there are no usable labels",)
    both = decide(Task((LABELLED, VALUES)), FinetuneOptions(), teacher=False)
    assert "outputs that labels aren't about aren't trained without distill: 1" in both.notes


@pytest.mark.parametrize(
    ("kind", "distill", "teacher", "words"),
    [
        (LABELLED, 0.5, False, "takes a dense model as teacher"),
        (UNLABELLED, None, False, "nothing to learn from"),
        (VALUES, 0.0, True, "nothing to learn from"),
    ],
)
def test_nothing_to_learn_from_is_an_error(kind, distill, teacher, words):
    with pytest.raises(InputError, match=words) as caught:
        decide(Task((kind,)), FinetuneOptions(distill=distill), teacher)
    assert caught.value.exit_code == 2


def test_a_model_of_integers_cannot_be_trained():
    with pytest.raises(InputError, match="no gradient"):
        decide(Task((Classes(None),)), FinetuneOptions(), teacher=True)


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_outside_the_classes_is_named(wrong):
    loss = bind(objective(0.0, LABELLED), None, None)
    with pytest.raises(DataError, match=rf"label {wrong} is outside 0\.\.2"):
        loss(Constant(SCORES[0]), batch(4, torch.tensor([0, 1, 2, wrong])))


def test_a_small_batch_is_filled_up_for_a_fixed_one_and_cut_off_again():
    seen = []

    class Rows(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x * 2, x.sum()

    inputs = torch.arange(3.0).reshape(3, 1)
    first, total = outputs_of(Rows(), Batch((inputs,), None), 4)
    assert seen == [4]
    assert torch.equal(first, inputs * 2)
    assert total.ndim == 0


def test_an_index_outside_its_table_is_told():
    with pytest.raises(DataError, match="token id"):
        outputs_of(nn.Embedding(5, 2), Batch((torch.tensor([[7]]),), None), None)


def test_a_teacher_that_answers_nan_is_the_models_fault():
    loss = bind(
        objective(1.0, VALUES),
        Constant(torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [3.0, 4.0]])),
        None,
    )
    with pytest.raises(InputError, match="NaN or infinity for 1 of 3 training samples, in output"):
        loss(Constant(torch.zeros(3, 2)), Batch((torch.zeros(3, 4),), None))
