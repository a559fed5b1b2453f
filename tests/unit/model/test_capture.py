# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model import Event, Input, capture, recapture, set_training
from tests.unit.model.nets import INPUTS, captured, everything, network, sample

EVENT = Event("load")


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)


class HardCoded(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.reshape(1, 3, 8, 8)).flatten(1)


class OneRow(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(1, -1)


class OnlyFour(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.reshape(4, 3, 8, 8))


class Looping(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(row[None]) for row in x.unbind(0)])


class DataDependent(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


class TwoInputs(Conv):
    def forward(self, image: Tensor, weight: Tensor) -> dict[str, object]:
        x = self.conv(image) * weight.view(weight.shape[0], 4, 1, 1)
        return {"map": x, "name": "a text", "pooled": (x.mean((2, 3)),)}


class Temperature(Conv):
    def forward(self, image: Tensor, temperature: Tensor) -> Tensor:
        return self.conv(image) / temperature


@pytest.mark.parametrize("name", INPUTS)
def test_a_captured_network_computes_what_the_network_does_at_any_batch(name):
    model = captured(name)
    module = model.module()
    shape, dtype = INPUTS[name]
    assert [(i.shape, i.dtype, i.dynamic_batch) for i in model.inputs] == [
        ((2, *shape), dtype, True)
    ]
    assert model.dynamic_batch
    for batch in (1, 2, 5):
        x = sample(name, batch)
        with torch.no_grad():
            assert torch.equal(module(x), network(name)(x))


@pytest.mark.parametrize("name", INPUTS)
def test_parameters_and_buffers_keep_their_names(name):
    module = captured(name).module()
    original = network(name)
    assert dict(module.named_parameters()).keys() == dict(original.named_parameters()).keys()
    assert dict(module.named_buffers()).keys() == dict(original.named_buffers()).keys()


@pytest.mark.parametrize("name", INPUTS)
def test_recapture_of_an_unedited_graph_is_the_same_model(name):
    model = captured(name)
    again = recapture(model, model.module(), Event("stage"))
    assert again.fingerprint() == model.fingerprint()
    assert again.inputs == model.inputs
    assert [e.stage for e in again.history] == ["load", "stage"]


def test_capture_leaves_the_module_as_it_was_and_shares_no_memory():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    module[2].eval()
    before = [part.training for part in module.modules()]
    model, _ = capture(module, (torch.randn(2, 1, 4, 4),), event=EVENT)
    fingerprint = model.fingerprint()
    assert [part.training for part in module.modules()] == before
    with torch.no_grad():
        module[0].weight.add_(1)
    assert model.fingerprint() == fingerprint


def test_module_is_a_copy_with_gradients_and_no_pinned_shapes():
    model = captured("digits_cnn")
    module = model.module()
    assert all(p.requires_grad for p in module.parameters())
    assert not module._forward_pre_hooks
    fingerprint = model.fingerprint()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for buffer in module.buffers():
            buffer.zero_()
    assert model.fingerprint() == fingerprint
    module(torch.randn(3, 1, 8, 8)).sum().backward()
    assert module.conv1.weight.grad is not None
    with pytest.raises(NotImplementedError):
        module.train()


def test_an_edited_graph_is_recaptured_without_sharing_memory():
    model = captured("digits_cnn")
    module = model.module()
    module.head.weight = nn.Parameter(module.head.weight[:7].detach().clone())
    module.head.bias = nn.Parameter(module.head.bias[:7].detach().clone())
    smaller = recapture(model, module, Event("prune", {"keep": (1, 2)}), "int8-weights")
    assert smaller.numerics == "int8-weights"
    assert smaller.fingerprint() != model.fingerprint()
    assert smaller.history[-1].options == {"keep": [1, 2]}
    fingerprint = smaller.fingerprint()
    with torch.no_grad():
        module.head.weight.zero_()
    assert smaller.fingerprint() == fingerprint
    assert smaller.module()(sample("digits_cnn", 3)).shape == (3, 7)


def test_tied_parameters_constants_and_private_buffers_survive():
    original, model = everything()
    for _ in range(2):
        module = model.module()
        assert module.out.weight is module.embedding.weight
        assert "scale" not in module.state_dict()
        assert "scale" in dict(module.named_buffers())
        assert "constant" not in dict(module.named_buffers())
        assert "constant" not in dict(module.named_parameters())
        ids = torch.arange(15).reshape(3, 5) % 10
        with torch.no_grad():
            for wanted, got in zip(original(ids), module(ids), strict=True):
                # Not equal: without gradients the original takes its fused attention kernel.
                assert torch.allclose(wanted, got, atol=1e-6)
        model = recapture(model, module, Event("again"))


def test_attention_stays_apart_where_torch_would_fuse_it():
    model = everything()[1]
    targets = {str(n.target) for n in model.program.graph.nodes}
    assert "aten.scaled_dot_product_attention.default" in targets
    assert "aten._transformer_encoder_layer_fwd.default" not in targets


def test_several_inputs_share_the_batch_and_outputs_come_flat():
    module = TwoInputs().eval()
    model, notes = capture(module, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 4)), event=EVENT)
    assert notes == ()
    assert model.inputs == (
        Input("image", (2, 3, 8, 8), torch.float32, True),
        Input("weight", (2, 4), torch.float32, True),
    )
    image, weight = torch.randn(5, 3, 8, 8), torch.randn(5, 4)
    with torch.no_grad():
        wanted, got = module(image, weight), model.module()(image, weight)
    assert torch.equal(got[0], wanted["map"])
    assert torch.equal(got[1], wanted["pooled"][0])
    assert len(got) == 2


def test_an_input_without_a_batch_stays_as_it_is():
    model, notes = capture(Temperature(), (torch.zeros(2, 3, 8, 8), torch.tensor(2.0)), event=EVENT)
    assert notes == ()
    assert [i.dynamic_batch for i in model.inputs] == [True, False]
    assert model.dynamic_batch
    assert model.module()(torch.zeros(4, 3, 8, 8), torch.tensor(1.0)).shape == (4, 4, 6, 6)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (HardCoded(), "invalid for input"),
        (Looping(), "fixes the batch size"),
        (OneRow(), "no output has the batch"),
    ],
)
def test_a_model_that_refuses_a_dynamic_batch_gets_a_static_one_and_says_why(module, why):
    model, notes = capture(module, (torch.zeros(2, 3, 8, 8),), event=EVENT)
    assert not model.dynamic_batch
    assert model.inputs[0].shape == (1, 3, 8, 8)
    (note,) = notes
    assert note.startswith("static batch of 1: ")
    assert why in note
    again = recapture(model, model.module(), Event("stage"))
    assert again.fingerprint() == model.fingerprint()


def test_a_model_for_one_batch_size_only_gets_that():
    model, notes = capture(OnlyFour(), (torch.zeros(4, 3, 8, 8),), event=EVENT)
    assert model.inputs[0].shape == (4, 3, 8, 8)
    assert notes[0].startswith("static batch of 4: ")


@pytest.mark.parametrize(
    ("module", "example", "why"),
    [
        (DataDependent(), torch.zeros(1, 3, 8, 8), "control flow depends on its data"),
        (HardCoded(), torch.zeros(1, 3, 9, 9), "invalid for input"),
        (nn.Embedding(4, 4), torch.zeros(1, 3), "--input-shape 1x128:int64"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_one_line(module, example, why, capfd):
    with pytest.raises(ModelError) as error:
        capture(module, (example,), event=EVENT)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_stage_that_breaks_the_graph_is_named():
    model = captured("digits_cnn")
    module = model.module()
    module.head.weight = nn.Parameter(torch.zeros(10, 3))
    with pytest.raises(EdgepruneError, match="prune: the edited graph doesn't run") as error:
        recapture(model, module, Event("prune"))
    assert error.value.exit_code == 3


def test_the_program_holds_no_data_no_path_and_no_stack_trace():
    secret = torch.full((2, 1, 8, 8), 42.0)
    model, _ = capture(network("digits_cnn"), (secret,), event=EVENT)
    assert all(not t.any() for t in model.program.example_inputs[0])
    for node in model.program.graph.nodes:
        assert not {"stack_trace", "from_node"} & node.meta.keys()


def test_the_fingerprint_sees_weights_numerics_literals_and_not_names():
    model = captured("digits_cnn")
    seen = {model.fingerprint()}
    for edit in ("weight", "buffer", "literal"):
        module = model.module()
        if edit == "weight":
            with torch.no_grad():
                module.conv1.weight[0, 0, 0, 0] += 1e-6
        elif edit == "buffer":
            module.bn1.running_mean[0] += 1e-6
        else:
            set_training(module, True)
        seen.add(recapture(model, module, Event(edit)).fingerprint())
    seen.add(model.evolve(model.program, Event("x"), "fp16").fingerprint())
    assert len(seen) == 5
    module = model.module()
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.name = f"renamed_{node.name}"
    module.recompile()
    assert recapture(model, module, Event("names")).fingerprint() == model.fingerprint()


def test_an_event_holds_only_what_json_says():
    assert Event("x", {"a": (1, 2)}) == Event("x", {"a": [1, 2]})
    with pytest.raises(TypeError):
        Event("x", {"a": object()})
    with pytest.raises(ValueError, match="JSON"):
        Event("x", facts={"a": float("nan")})
