# SPDX-License-Identifier: Apache-2.0
"""What runs inside tflite-micro's environment, with an interpreter of our own."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.tflm import program

TAKES = "Failed to allocate tail memory. Requested: 104, available 96, missing: 8"


class Small:
    """An interpreter that loads from ``need`` bytes on, and crashes below ``crash`` bytes."""

    def __init__(self, need: int, crash: int = 0) -> None:
        self.need, self.crash = need, crash

    def load(self, size: int) -> object:
        if size < self.crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if size < self.need:
            sys.stderr.flush()
            os.write(2, f"{TAKES}\n".encode())
            raise RuntimeError("TFLM failed to allocate tensors")
        return self


@given(need=st.integers(16, 200_000), reported=st.integers(1, 250_000))
def test_the_smallest_arena_is_found(need: int, reported: int) -> None:
    """Whatever the recorder says."""
    tried = []

    def works(size: int) -> bool:
        tried.append(size)
        return size >= need

    arena, refused = program.bisect(works, reported, 1 << 20)
    assert arena == -(-need // 16) * 16
    assert refused < need
    assert refused >= min(0.98 * arena, arena - 16)
    assert {arena, refused, arena - 16} <= {*tried, 1 << 20, 0}
    assert len(tried) < 25


def test_an_arena_without_a_clear_limit_is_no_arena() -> None:
    with pytest.raises(program.Refused, match="no clear limit: 2064 bytes were found, 2023 do"):
        program.bisect(lambda size: size != 2048, 4096, 8192)


def test_a_child_tells_how_it_ended() -> None:
    assert program.attempt(lambda: None) == (0, "")
    code, said = program.attempt(lambda: Small(100).load(10))
    assert (code, said.strip()) == (1, TAKES)
    assert program.attempt(lambda: Small(100, crash=50).load(10))[0] == -signal.SIGKILL
    assert program.attempt(lambda: 1 // 0)[0] == 1


def test_a_child_does_not_run_on_into_the_caller() -> None:
    before = os.getpid()
    program.attempt(lambda: time.sleep(0))
    assert os.getpid() == before


@pytest.mark.parametrize(
    ("need", "crash"), [(5000, 0), (program.SMALLEST + 1, 0), (3_000_000, 2_000_000)]
)
def test_a_roomy_arena_is_looked_for(need: int, crash: int) -> None:
    found, room = program.load_roomy(Small(need, crash).load, 1000)
    assert isinstance(found, Small)
    assert need <= room <= max(program.SMALLEST, 4 * need)


def test_more_than_any_chip_has_is_refused() -> None:
    with pytest.raises(program.Refused, match="it needs an arena of more than 1024 MiB"):
        program.load_roomy(Small(program.LARGEST + 1).load, 1000)


def test_a_refusal_that_is_not_about_memory_ends_the_search(tmp_path: Path) -> None:
    tried = tmp_path / "tried"

    def load(size: int) -> None:
        with tried.open("a") as file:
            file.write(f"{size}\n")
        os.write(2, b"Didn't find op for builtin opcode 'GELU'\n")
        raise RuntimeError("TFLM failed to allocate tensors")

    with pytest.raises(program.Refused, match="no kernel for GELU"):
        program.load_roomy(load, 1000)
    assert tried.read_text().split() == [str(program.SMALLEST)]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            "Didn't find op for builtin opcode 'GELU'\nFailed to get registration from op code "
            "GELU\n \nTFLM failed to allocate tensors",
            "it has no kernel for GELU",
        ),
        ("Failed to get registration from op code CUSTOM\n", "it has no kernel for CUSTOM"),
        (
            "tensorflow/lite/micro/kernels/x.cc Hybrid models are not supported on TFLite Micro.\n"
            "Node DEPTHWISE_CONV_2D (number 0) failed to prepare with status 1",
            "operator 0, DEPTHWISE_CONV_2D: Hybrid models are not supported on TFLite Micro.",
        ),
        (
            "a/dequantize_common.cc:42 input->type == kTfLiteInt8 was not true.\n"
            "Node DEQUANTIZE (number 3) failed to prepare with status 1\n",
            "operator 3, DEQUANTIZE: input->type == kTfLiteInt8 was not true.",
        ),
        (TAKES, "it needs an arena of more than 1024 MiB"),
        ("\n something  else \n", "something else"),
        ("", "it gave no reason"),
    ],
)
def test_a_refusal_is_told_in_one_line(said: str, cause: str) -> None:
    assert program.cause(said) == cause


class Printing:
    """Prints what tflite-micro's recorder does, past Python."""

    def __init__(self, text: str) -> None:
        self.text = text

    def print_allocations(self) -> None:
        os.write(2, self.text.encode())


def test_the_recorders_print_is_read(capfd: Any) -> None:
    prefix = "[RecordingMicroAllocator] "
    text = (
        f"{prefix}Arena allocation total 6784 bytes\n{prefix}Arena allocation head 3648 bytes\n"
        f"{prefix}Arena allocation tail 3136 bytes\n{prefix}'TfLiteEvalTensor data' used 528 bytes "
        f"with alignment overhead (requested 520 bytes for 22 allocations)\n"
    )
    assert program.allocations(Printing(text)) == {
        "total": 6784,
        "head": 3648,
        "tail": 3136,
        "parts": {"TfLiteEvalTensor data": 528},
    }
    assert capfd.readouterr() == ("", "")
    with pytest.raises(program.Refused, match="didn't print what it allocated"):
        program.allocations(Printing("nothing of the kind"))
