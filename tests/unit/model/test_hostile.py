# SPDX-License-Identifier: Apache-2.0
"""No model file writes, imports or runs anything, and none eats the machine."""

import io
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.cli.main import main
from edgeprune.errors import ModelError
from edgeprune.model import load
from tests.unit.model.hostile import (
    Canary,
    edited,
    files,
    graph_edit,
    hostile_names,
    members,
    saved_program,
    zipped,
)

ROOT = Path(__file__).parents[3]
SHAPE = ("--input-shape", "1x4")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What must not exist after a test; importing a module of that name creates it too."""
    (tmp_path / "lib").mkdir()
    target = tmp_path / "canary_module"
    code = f"import enum, pathlib\npathlib.Path({str(target)!r}).touch()\nx = list\n"
    (tmp_path / "lib" / "canary_module.py").write_text(code + "class Enum(enum.Enum):\n    x = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "canary_module", raising=False)
    return target


@pytest.mark.parametrize("name", hostile_names())
def test_a_hostile_file_is_refused_and_does_nothing(
    name: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.pt2"
    model.write_bytes(files(name, canary))
    assert not canary.exists()
    for command in (["inspect"], ["compress", "-t", "rpi4", "--dry-run", "--allow-unmeasured"]):
        assert main([*command, str(model), *SHAPE]) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if not line.startswith(">")]
        assert len(lines) == 1, captured.err
        assert str(model) in lines[0]
        assert not canary.exists()


@pytest.mark.parametrize("name", ["use_pickle 1", "two directories", "from_file", "defaultdict"])
def test_torch_itself_would_run_it(name: str, canary: Path) -> None:
    """If this fails, the trap is broken or torch has become safe."""
    try:
        program = torch.export.load(io.BytesIO(files(name, canary)))
        program.module(check_guards=False)(torch.ones(2, 4))
    except Exception:
        pass
    assert canary.exists()


def test_torchscript_runs_as_it_is_loaded_and_needs_trust(canary: Path, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(files("torchscript __setstate__", canary))
    with pytest.raises(ModelError, match="--trust-pickle"):
        load(tmp_path / "m", input_shapes=("1x4",))
    assert not canary.exists()
    load(tmp_path / "m", input_shapes=("1x4",), trust_pickle=True)
    assert canary.exists()


def test_a_trusted_program_may_be_pickled(canary: Path, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(files("use_pickle 1", canary))
    with pytest.raises(ModelError):  # a canary is no weight
        load(tmp_path / "m", trust_pickle=True)
    assert canary.exists()


def refused(content: bytes, path: Path, why: str) -> None:
    """Loading must fail soon, with one line, and without much memory."""
    path.write_bytes(content)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=why) as error:
        load(path, input_shapes=("1x4",))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert time.monotonic() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def with_size(text: object) -> bytes:
    def change(document: dict) -> None:
        for value in document["graph_module"]["graph"]["tensor_values"].values():
            value["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}

    return edited(saved_program(), graph_edit(change))


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "9^9^9^9",
        "PowByNatural(9, PowByNatural(9, 99))",
        "LShift(1, 10**12)",
        "((((((s0**64)**64)**64)**64)**64)**64)",
        "2**s0",
        "FloorDiv((s0 + s1)**30, (s0 + s1 + 1)**29)",
        "Max(" * 40 + "s0" + "".join(f", s{i} + 1)" for i in range(40)),
        "floor(1e999999999)",
        "floor(1/1e-999999999)",
        "*".join(["(s0 + 1)"] * 5000),
        "(" * 3000 + "s0" + ")" * 3000,
        "-" * 5000 + "s0",
        "9" * 9000,
        ["s0", "9**9**9**9"],
        {"s0": "9**9**9**9"},
    ],
    ids=lambda text: str(text)[:24],
)
def test_a_symbolic_size_beyond_all_measure_is_refused(text: object, tmp_path: Path) -> None:
    refused(with_size(text), tmp_path / "m.pt2", "size")


@pytest.mark.parametrize(
    "text", ["s0", "2*s0 + 1", "((s0 - 1)//2)**2 + Max(1, s0)", "Mod(s0, 8)", "Eq(s0, 2)", "s0/2"]
)
def test_symbolic_sizes_that_torch_writes_are_arithmetic(text: str) -> None:
    from edgeprune.model.screen import check_program

    check_program({"sizes": [{"as_expr": {"expr_str": text}}]}, "model.json")


@pytest.mark.parametrize("depth", [250, 100_000])
def test_deep_json_is_refused(depth: int, tmp_path: Path) -> None:
    deep = b"[" * depth + b"]" * depth
    for table in ("models/model.json", "weights_config.json"):
        content = edited(
            saved_program(), lambda name, data, table=table: deep if name.endswith(table) else data
        )
        refused(content, tmp_path / "m.pt2", "nested")
    header = b'{"a":' + deep + b"}"
    refused(len(header).to_bytes(8, "little") + header, tmp_path / "t.safetensors", "")


def test_a_symbol_of_a_huge_number_is_refused(tmp_path: Path) -> None:
    def change(document: dict) -> None:
        document["range_constraints"] = {"u99999999999": {"min_val": 0, "max_val": 4}}

    refused(edited(saved_program(), graph_edit(change)), tmp_path / "m.pt2", "a symbol is called")


def test_what_inflates_beyond_measure_is_refused(tmp_path: Path) -> None:
    bomb = zipped({"m/data.pkl": b"x" * 120_000_000}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1_000_000
    refused(bomb, tmp_path / "m.pt", "would inflate to 120,000,000 bytes")
    content = members(saved_program())
    (name,) = (n for n in content if n.endswith("weight_0"))
    bomb = zipped(content | {name: bytes(120_000_000)}, zipfile.ZIP_DEFLATED)
    refused(bomb, tmp_path / "m.pt2", "would inflate to")


def test_a_deflated_program_loads(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(zipped(members(saved_program()), zipfile.ZIP_DEFLATED))
    (tmp_path / "n.pt2").write_bytes(saved_program())
    torch.manual_seed(0)
    one, two = (load(tmp_path / f"{name}.pt2").model.module() for name in "mn")
    assert one.code == two.code


class Called:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": Called(bytearray, 10**10)}, "bytearray"),
        ({"a": Called(torch.Tensor, 10**10)}, "torch"),
        ({"a": torch.ones(1).expand(10**10)}, "40,000,000,000 bytes by their shapes"),
        ({"a": torch.ones(1).expand(10**5, 10**5, 10**5)}, "bytes by their shapes"),
        ({"a": torch.sparse_coo_tensor([[0]], [1.0], (10**9,))}, "sparse"),
        ({"a": torch.empty(10**9, device="meta")}, "meta"),
    ],
)
def test_a_state_dict_that_claims_gigabytes_is_refused(
    value: object, why: str, legacy: bool, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    refused(buffer.getvalue(), tmp_path / "m.pt", why)


def test_a_pickle_that_hashes_for_ever_is_refused(tmp_path: Path) -> None:
    """Sixty tuples of twice the one before, as a key: Python hashes 2**60 of them."""
    value: tuple = ("x",)
    for _ in range(60):
        value = (value, value)
    key = pickle.dumps(value, protocol=2)[2:-1]
    bomb = b"\x80\x02}" + key + b"K\x01s."
    refused(zipped({"m/data.pkl": bomb}), tmp_path / "m.pt", "more objects")


def test_a_program_whose_weights_claim_gigabytes_is_refused(tmp_path: Path) -> None:
    def change(document: dict) -> None:
        meta = document["config"]["head.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 10**10}], [{"as_int": 0}]

    content = edited(saved_program(), graph_edit(change, "weights_config.json"))
    refused(content, tmp_path / "m.pt2", "40,000,000,0.. bytes by their shapes")
    empty = edited(content, lambda name, data: b"" if name.endswith("weight_0") else data)
    refused(empty, tmp_path / "m.pt2", "is empty")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data + b"x", "directory isn't at its end"),
        (lambda data: b"PK\3\4" + data, "directory isn't where"),
        (lambda data: data[:-2] + b"\5\0hello", "at its end"),
        (lambda data: data.replace(b"model_weights", b"Model_weights", 1), "differ"),
        (lambda data: data.replace(b"archive_format", b"archive\0format"), "called"),
        (lambda data: data.replace(b"archive_format", b"../archive_for"), "called"),
    ],
)
def test_an_archive_that_is_read_in_two_ways_is_refused(change, why: str, tmp_path: Path) -> None:
    content = zipped(members(saved_program()))
    assert change(content) != content
    refused(change(content), tmp_path / "m.pt2", why)


@pytest.mark.parametrize("name", ["MODELS/model.json", "models/Model.json"])
def test_two_members_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    content = members(saved_program())
    folder = next(iter(content)).partition("/")[0]
    one = next(n for n in content if n.endswith("models/model.json"))
    content[f"{folder}/{name}"] = content[one]
    refused(zipped(content), tmp_path / "m.pt2", "two members of one name")


class Dropping(nn.Module):
    """In train mode: random numbers, statistics and a counter that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.lstm = nn.BatchNorm1d(4), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = nn.functional.dropout(self.bn(x), training=self.training).relu_()
        y, _ = self.lstm(x[:, None])
        return {"y": y.squeeze(1).add_(1), "noise": x + 0 * torch.rand_like(x)}


def test_a_missing_member_is_told_of_an_empty_tensor_too(tmp_path: Path) -> None:
    def shrink(table: dict) -> None:
        for entry in table["config"].values():
            entry["tensor_meta"]["sizes"][0]["as_int"] = 0

    content = edited(saved_program(), graph_edit(shrink, "model_weights_config.json"))
    gone = edited(content, lambda name, data: None if name.endswith("weight_0") else data)
    refused(gone, tmp_path / "m.pt2", "damaged: .*weight_0")


def test_operators_of_usual_networks_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(saved_program(Dropping().train(), torch.randn(2, 4)))
    assert load(tmp_path / "m.pt2").notes[0].startswith("exported in train mode")


def test_an_operator_of_another_library_or_device_is_refused(tmp_path: Path) -> None:
    for target in ("torch.ops.image.read_file.default", "torch.hub.load", "torch.ops.aten.save"):
        content = edited(
            saved_program(),
            lambda name, data, target=target: data.replace(
                b"torch.ops.aten.relu.default", target.encode()
            ),
        )
        refused(content, tmp_path / "m.pt2", f"uses the operator '{target}'")
    content = edited(
        saved_program(), lambda name, data: data.replace(b'"type": "cpu"', b'"type": "cuda"')
    )
    refused(content, tmp_path / "m.pt2", "exported on the device 'cuda'")


FACTORIES = """
import sys
def leaves(): sys.exit(0)
def raises(): raise ValueError("no network today")
def nothing(): return None
def waits(x): return x
class Own(BaseException): pass
def own(): raise Own("\\nof my own")
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("leaves", "ended Python (SystemExit: 0)"),
        ("own", "Own: of my own"),
        ("raises", "no network today"),
        ("nothing", "NoneType"),
        ("waits", "without arguments"),
    ],
)
def test_a_factory_that_fails_is_named(
    name: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "user_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_factories", raising=False)
    torch.save(nn.Linear(4, 2).state_dict(), "w.pt")
    assert main(["inspect", "w.pt", "--arch", f"user_factories:{name}", *SHAPE]) == 2
    text = capsys.readouterr().err
    assert f"--arch user_factories:{name}" in text
    assert why in text


def test_a_module_that_exits_as_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "user_leaves.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(4, 2).state_dict(), "w.pt")
    assert main(["inspect", "w.pt", "--arch", "user_leaves:Net", *SHAPE]) == 2
    assert "can't import user_leaves" in capsys.readouterr().err


def test_a_deleted_folder_or_a_long_path_is_bad_input(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "m.pt2").write_bytes(saved_program())
    (tmp_path / "w.pt").write_bytes(b"PK\3\4")
    for model in (tmp_path / "w.pt", Path("x" * 5000), Path("m\0.pt2")):
        if "\0" in str(model):
            assert main(["inspect", str(model), *SHAPE]) == 2
            continue
        gone.mkdir(exist_ok=True)
        command = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
        command += "from edgeprune.cli.main import main; raise SystemExit(main("
        command += f"{['inspect', str(model), *SHAPE]!r}))"
        run = subprocess.run(
            [sys.executable, "-c", command],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}, capture_output=True,
        )  # fmt: skip
        assert run.returncode == 2, run.stderr
        assert b"Traceback" not in run.stderr


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "x"), tmp_path / "m.pt")
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert (tmp_path / "x").exists()
