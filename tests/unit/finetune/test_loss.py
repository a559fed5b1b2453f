# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from torch import nn

from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.finetune.loss import Objective, bind, decide, outputs_of
from edgeprune.recipe import FinetuneOptions

SCORES = (torch.zeros(4, 3),)
LABELS = torch.tensor([0, 1, 2, 0])


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
    objective = Objective("classes", weight, t, labelled=True)
    loss = bind(objective, Constant(torch.tensor(teacher)), None)
    score = loss(Constant(torch.tensor(student)), batch(2, torch.tensor(labels)))
    assert score.loss.item() == pytest.approx(expected, rel=1e-6)
    assert (score.samples, score.right, score.judged) == (2, 1, 2)


def test_labels_alone_never_run_the_teacher():
    class Fails(nn.Module):
        def forward(self, *_inputs):
            raise AssertionError("the teacher ran")

    loss = bind(Objective("classes", 0.0, 4.0, labelled=True), Fails(), None)
    assert loss(Constant(SCORES[0]), batch(4, LABELS)).loss.item() == pytest.approx(math.log(3))


def test_without_labels_right_is_what_the_teacher_says():
    loss = bind(Objective("classes", 1.0, 2.0, labelled=False), Constant(torch.eye(3)), None)
    score = loss(Constant(torch.tensor([[5.0, 0, 0], [5.0, 0, 0], [0, 0, 5.0]])), batch(3))
    assert (score.right, score.judged) == (2, 3)


def test_outputs_without_classes_are_matched_all_of_them():
    student = (torch.ones(2, 3, 4), torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    teacher = (torch.full((2, 3, 4), 3.0), torch.ones(2, 5), torch.ones(2, dtype=torch.long))
    loss = bind(Objective("outputs", 1.0, 4.0, labelled=False), Constant(*teacher), None)
    score = loss(Constant(*student), batch(2))
    assert score.loss.item() == pytest.approx(4.0 + 1.0)
    assert score.judged == 0


@pytest.mark.parametrize(
    ("outputs", "labels", "kind", "labelled", "distill"),
    [
        (SCORES, LABELS, "classes", True, 0.5),
        (SCORES, None, "classes", False, 1.0),
        ((torch.zeros(4, 3, 8, 8),), torch.zeros(4, 8, 8, dtype=torch.long), "classes", True, 0.5),
        ((torch.zeros(4, 3, 8, 8),), None, "outputs", False, 1.0),
        ((torch.zeros(4, 3, 8, 8),), LABELS, "outputs", False, 1.0),
        ((torch.zeros(4, 1),), LABELS, "outputs", False, 1.0),
        ((torch.zeros(4),), None, "outputs", False, 1.0),
        ((torch.zeros(4, dtype=torch.long), torch.zeros(4, 7)), None, "outputs", False, 1.0),
    ],
)  # fmt: skip
def test_the_shape_decides(outputs, labels, kind, labelled, distill):
    found = decide(outputs, labels, FinetuneOptions(), teacher=True)
    assert (found.kind, found.labelled, found.distill) == (kind, labelled, distill)
    unused = labels is not None and not labelled
    assert any("labels not used" in note for note in found.notes) == unused


def test_options_and_a_missing_teacher_count():
    assert decide(SCORES, LABELS, FinetuneOptions(distill=0.2), teacher=True).distill == 0.2
    alone = decide(SCORES, LABELS, FinetuneOptions(), teacher=False)
    assert alone.distill == 0.0
    assert alone.notes == ("no dense model is given: trained on the labels alone",)
    raised = decide(SCORES, None, FinetuneOptions(distill=0.2), teacher=True)
    assert raised.distill == 1.0
    assert raised.notes == ("distill 0.2 taken as 1: there are no usable labels",)


@pytest.mark.parametrize(
    ("labels", "distill", "teacher", "words"),
    [
        (LABELS, 0.5, False, "takes a dense model as teacher"),
        (None, None, False, "nothing to learn from"),
        (None, 0.0, True, "nothing to learn from"),
    ],
)
def test_nothing_to_learn_from_is_an_error(labels, distill, teacher, words):
    with pytest.raises(InputError, match=words) as caught:
        decide(SCORES, labels, FinetuneOptions(distill=distill), teacher)
    assert caught.value.exit_code == 2


def test_a_model_of_integers_cannot_be_trained():
    with pytest.raises(InputError, match="no gradient"):
        decide((torch.zeros(4, dtype=torch.long),), LABELS, FinetuneOptions(), teacher=True)


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_outside_the_classes_is_named(wrong):
    loss = bind(Objective("classes", 0.0, 4.0, labelled=True), None, None)
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
        Objective("outputs", 1.0, 4.0, labelled=False),
        Constant(torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [3.0, 4.0]])),
        None,
    )
    with pytest.raises(InputError, match="NaN or infinity for 1 of 3 training samples, in output"):
        loss(Constant(torch.zeros(3, 2)), Batch((torch.zeros(3, 4),), None))
