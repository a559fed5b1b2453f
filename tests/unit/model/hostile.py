# SPDX-License-Identifier: Apache-2.0
"""Files that would write to a path, or eat the machine, if torch were given them as they are."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import export

__all__ = [
    "Canary",
    "Edit",
    "edited",
    "files",
    "graph_edit",
    "hostile_names",
    "members",
    "of_two_directories",
    "saved_program",
    "zipped",
]

Edit = Callable[[str, bytes], bytes | None]


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Small(nn.Module):
    """Takes four numbers, gives two."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.head(x))


def saved_program(module: nn.Module | None = None, *args: Tensor, **options: Any) -> bytes:
    """A whole ``.pt2`` file."""
    buffer = io.BytesIO()
    program = export(module or Small(), args or (torch.ones(2, 4),), **options)
    torch.export.save(program, buffer)
    return buffer.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    """What an archive holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def edited(content: bytes, edit: Edit) -> bytes:
    """An archive with ``edit(name, data)`` applied to each member; ``None`` leaves it out."""
    changed = {name: edit(name, data) for name, data in members(content).items()}
    assert changed != members(content), "the edit changed nothing"
    return zipped({name: data for name, data in changed.items() if data is not None})


def graph_edit(change: Callable[[Any], None], table: str = "models/model.json") -> Edit:
    """Change a JSON document of a program."""

    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith(table):
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return edit


def hostile_names() -> list[str]:
    """What ``files`` can make."""
    return list(_FILES)


def files(name: str, target: Path) -> bytes:
    """A file that would create ``target``, by what it does it with."""
    return _FILES[name](target)


def _pickled(target: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Canary(target), buffer)
    return buffer.getvalue()


def _use_pickle(value: Any) -> Callable[[Path], bytes]:
    def make(target: Path) -> bytes:
        def change(document: Any) -> None:
            document["config"]["head.weight"]["use_pickle"] = value

        edit = graph_edit(change, "weights_config.json")
        content = edited(saved_program(), edit)
        return edited(
            content, lambda name, data: _pickled(target) if name.endswith("weight_0") else data
        )

    return make


def of_two_directories(first: bytes, second: bytes) -> bytes:
    """One file of two archives: the directory at its end is of ``second``, but the whole of it is
    the comment of ``first``, whose end a reader may find instead."""
    one, two = bytearray(first), bytearray(second)
    shift = len(one)
    count, _, start = struct.unpack_from("<HLL", two, len(two) - 12)
    at = start
    for _ in range(count):  # the second archive begins behind the first
        named, extra = struct.unpack_from("<HH", two, at + 28)
        (header,) = struct.unpack_from("<L", two, at + 42)
        struct.pack_into("<L", two, at + 42, header + shift)
        at += 46 + named + extra
    struct.pack_into("<L", two, len(two) - 6, start + shift)
    struct.pack_into("<H", one, len(one) - 2, len(two))
    return bytes(one + two)


def _two_directories(swap: bool) -> Callable[[Path], bytes]:
    def make(target: Path) -> bytes:
        one, two = zipped(members(saved_program())), zipped(members(_use_pickle(True)(target)))
        return of_two_directories(two, one) if swap else of_two_directories(one, two)

    return make


def _zip64_directory(target: Path) -> bytes:
    """The 32-bit end tells one directory, the 64-bit end another."""
    good, bad = zipped(members(saved_program())), zipped(members(_use_pickle(True)(target)))
    both = of_two_directories(good, bad)
    count, length, start = struct.unpack_from("<HLL", good, len(good) - 12)
    body, end = both[:-22], bytearray(both[-22:])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
    return body + wide + struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body), 1) + bytes(end)


def _local_name(target: Path) -> bytes:
    """The directory calls the tables by other names than their own headers do."""
    content = bytearray(zipped(members(_use_pickle(True)(target))))
    at = content.rindex(b"weights_config.json")
    content[at : at + 1] = b"W"
    return bytes(content)


def _node(target: str, **arguments: Any) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": [{"name": n, "arg": value, "kind": 1} for n, value in arguments.items()],
        "outputs": [{"as_tensor": {"name": "mapped"}}],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": "mapped",
    }


def _mapped(nested: bool) -> Callable[[Path], bytes]:
    """A graph that maps a file into memory, and writes to it."""

    def make(target: Path) -> bytes:
        from_file = _node(
            "torch.ops.aten.from_file.default",
            filename={"as_string": str(target)},
            shared={"as_bool": True},
            size={"as_int": 4},
        )

        def change(document: Any) -> None:
            graph = document["graph_module"]["graph"]
            (relu,) = [n for n in graph["nodes"] if "relu" in n["target"]]
            value = json.loads(json.dumps(graph["tensor_values"]["relu"]))
            value["sizes"], value["strides"] = [{"as_int": 4}], [{"as_int": 1}]
            inner = graph
            if nested:
                inner = json.loads(json.dumps(graph))
                relu["inputs"].append(
                    {"name": "", "arg": {"as_graph": {"name": "f", "graph": inner}}, "kind": 1}
                )
                relu["target"] = "torch.ops.higher_order.cond"
            inner["tensor_values"]["mapped"] = value
            write = _node(
                "torch.ops.aten.copy_.default",
                self={"as_tensor": {"name": "mapped"}},
                src={"as_float": 1.0},
            )
            write["name"], write["outputs"] = "write", [{"as_tensor": {"name": "write"}}]
            inner["tensor_values"]["write"] = value
            inner["nodes"] += [from_file, write]

        return edited(saved_program(), graph_edit(change))

    return make


class _Setting(nn.Module):
    """TorchScript whose ``__setstate__`` runs as it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x * 2

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), self.path)


class _Mapping(nn.Module):
    """TorchScript that maps a file as it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file(self.path, shared=True, size=4).fill_(1.0)


def _script(kind: type[nn.Module]) -> Callable[[Path], bytes]:
    def make(target: Path) -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(kind(str(target))), buffer)
        return buffer.getvalue()

    return make


def _expression(text: Callable[[Path], str]) -> Callable[[Path], bytes]:
    def make(target: Path) -> bytes:
        def change(document: Any) -> None:
            for value in document["graph_module"]["graph"]["tensor_values"].values():
                value["sizes"][0] = {"as_expr": {"expr_str": text(target), "hint": None}}

        return edited(saved_program(), graph_edit(change))

    return make


def _named_parameter(target: Path) -> bytes:
    """A parameter's name becomes Python code."""
    touch = f'getattr(getattr(__import__("pathlib"), "Path")({str(target)!r}), "touch")()'
    evil = f'w"), {touch}, ("x'

    def change(document: Any) -> None:
        for spec in document["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "head.weight":
                spec["parameter"]["parameter_name"] = evil

    def edit(name: str, data: bytes) -> bytes:
        data = graph_edit(change)(name, data)
        return data.replace(b'"head.weight"', json.dumps(evil).encode())

    return edited(saved_program(), edit)


def _tree(change: Callable[[list[Any], str], None]) -> Callable[[Path], bytes]:
    """Inputs in a tree that names a module, one that creates the file as it is imported."""

    def make(target: Path) -> bytes:
        def edit(document: Any) -> None:
            signature = document["graph_module"]["module_call_graph"][0]["signature"]
            tree = json.loads(signature["in_spec"])
            change(tree, target.stem)
            signature["in_spec"] = json.dumps(tree)

        return edited(saved_program(), graph_edit(edit))

    return make


def _enum(tree: list[Any], module: str) -> None:
    key = {"__enum__": True, "fqn": f"{module}:Enum", "name": "x"}
    tree[1]["children_spec"][1]["context"] = json.dumps([key])


def _factory(tree: list[Any], module: str) -> None:
    context = {"default_factory_module": module, "default_factory_name": "x", "dict_context": []}
    tree[1]["children_spec"][1].update(type="collections.defaultdict", context=context)


def _old_pickle(target: Path) -> bytes:
    """A member of the older format that is called JSON and unpickled."""
    return zipped(
        {
            "version": b"8.20",
            "serialized_exported_program.json": b"{}",
            "serialized_state_dict.json": _pickled(target),
        }
    )


_FILES: dict[str, Callable[[Path], bytes]] = {
    "use_pickle true": _use_pickle(True),
    "use_pickle 1": _use_pickle(1),
    "use_pickle text": _use_pickle("true"),
    "use_pickle list": _use_pickle([0]),
    "two directories": _two_directories(False),
    "two directories, other way round": _two_directories(True),
    "two directories, 64 bits": _zip64_directory,
    "another name in the header": _local_name,
    "from_file": _mapped(False),
    "from_file in a subgraph": _mapped(True),
    "torchscript __setstate__": _script(_Setting),
    "torchscript from_file": _script(_Mapping),
    "size": _expression(lambda path: f"__import__('pathlib').Path({str(path)!r}).touch() or 3"),
    "parameter's name": _named_parameter,
    "enum key": _tree(_enum),
    "defaultdict": _tree(_factory),
    "older format": _old_pickle,
}
