# SPDX-License-Identifier: Apache-2.0
"""The next model after an edit that keeps the graph's form: without exporting it again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind, TensorArgument
from torch.fx import Graph, GraphModule, Node

from edgeprune.model.capture import recapture
from edgeprune.model.carrier import Event, Model
from edgeprune.model.program import copied, holder, quietly, tidied
from edgeprune.model.shaping import reshape

__all__ = ["Change", "rebuild"]

Change = Callable[[Graph], None]
"""An edit, in place, of operators and what they take; it leaves placeholders alone."""

_REFUSED = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError)
"""What torch raises where an operator can't be run on shapes alone, or doesn't fit them."""


def rebuild(
    model: Model,
    state: Mapping[str, Tensor],
    change: Change,
    event: Event,
    drop: Collection[str] = (),
) -> Model:
    """``model`` with other tensors under some of its names, and its graph changed to fit them.

    The same as editing ``model.module()`` and giving it to ``recapture``, node for node, in a
    fraction of the time: the graph runs on tensors that hold no data, which finds all shapes
    (``model.shaping``), and torch's verifier looks at the whole. Where those runs can't vouch for
    every batch size, or the graph has parts that they don't enter, it is exported again.

    Args:
        model: Left as it was. The result shares the tensors that ``state`` doesn't replace.
        state: New parameters, buffers and constants by their names; one that is a ``Parameter``
            in the model becomes one. Tied names must all be given, with one tensor.
        change: Called with a copy of the graph, whose operators have the names that they have in
            ``model.program``; where the graph is exported again, called once more with another.
            A state tensor whose last use it takes away goes with it; others stay, used or not.
        event: The next entry of the history.
        drop: State that goes too: what nothing used before either.

    Raises:
        EdgepruneError: The changed graph doesn't run.
    """
    given = _typed(model.program, state)
    with quietly():
        program = _edited(model.program, given, change, drop) if _is_plain(model.program) else None
    return model.evolve(program, event) if program else _exported(model, given, change, event, drop)


def _typed(program: ExportedProgram, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with parameters under parameters' names; what was one tensor stays one."""
    made: dict[int, nn.Parameter] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        old = program.state_dict.get(name)
        if isinstance(old, nn.Parameter) and not isinstance(tensor, nn.Parameter):
            new = nn.Parameter(tensor.detach(), requires_grad=old.requires_grad)
            found[name] = made.setdefault(id(tensor), new)
        else:
            found[name] = tensor
    return found


def _is_plain(program: ExportedProgram) -> bool:
    """Whether tensors and sizes are all that the graph handles, in one piece."""
    return all(
        node.op != "get_attr" and "unbacked_bindings" not in node.meta
        for node in program.graph.nodes
    ) and all(isinstance(value, Tensor) for value in program.constants.values())


def _edited(
    program: ExportedProgram, state: Mapping[str, Tensor], change: Change, drop: Collection[str]
) -> ExportedProgram | None:
    """The changed program, or ``None`` where one has to export to know."""
    graph = copied(program)
    used = _used(graph)
    change(graph)
    graph.eliminate_dead_code()
    left = _used(graph)
    idle = {s.arg.name for s in program.graph_signature.input_specs if s.target in drop}
    signature, dropped = _signature(program.graph_signature, graph, (used | idle) - left)
    dropped |= set(drop) - {s.target for s in signature.input_specs}
    tensors, constants = (
        {name: state.get(name, old) for name, old in store.items() if name not in dropped}
        for store in (program.state_dict, program.constants)
    )
    try:
        stored = {**tensors, **constants}
        reshape(graph, {s.arg.name: stored[s.target] for s in signature.input_specs if s.target})
    except _REFUSED:
        return None
    result = ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=signature,
        state_dict=tensors,
        range_constraints=dict(program.range_constraints),
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=constants,
        verifiers=program.verifiers,
    )
    return tidied(result)


def _used(graph: Graph) -> set[str]:
    return {node.name for node in graph.find_nodes(op="placeholder") if node.users}


def _signature(
    old: ExportGraphSignature, graph: Graph, unused: set[str]
) -> tuple[ExportGraphSignature, set[str]]:
    """The signature of the changed graph, and the names of the state that went out of use."""
    kept = {spec.target for spec in old.output_specs}
    gone = {
        spec.arg.name: spec.target
        for spec in old.input_specs
        if spec.target is not None and spec.arg.name in unused and spec.target not in kept
    }
    for node in graph.find_nodes(op="placeholder"):
        if node.name in gone:
            graph.erase_node(node)
    inputs = [spec for spec in old.input_specs if spec.arg.name not in gone]
    (output,) = graph.find_nodes(op="output")
    outputs = [
        replace(spec, arg=TensorArgument(name=value.name))
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(value, Node)
        else spec
        for spec, value in zip(old.output_specs, output.args[0], strict=True)
    ]
    return ExportGraphSignature(inputs, outputs), {str(target) for target in gone.values()}


def _exported(
    model: Model, state: Mapping[str, Tensor], change: Change, event: Event, drop: Collection[str]
) -> Model:
    """The same by an export."""
    module = model.module()
    used = _fetched(module)
    for name, tensor in state.items():
        owner, leaf = holder(module, name)
        setattr(owner, leaf, tensor)
    change(module.graph)
    module.graph.eliminate_dead_code()
    left = _fetched(module)
    for name in (used | set(drop)) - left:
        owner, leaf = holder(module, name)
        if hasattr(owner, leaf):
            delattr(owner, leaf)
    module.graph.lint()
    module.recompile()
    return recapture(model, module, event)


def _fetched(module: GraphModule) -> set[str]:
    return {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
