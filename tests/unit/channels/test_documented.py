# SPDX-License-Identifier: Apache-2.0
"""The example in the docstring of ``edgeprune.channels`` runs and does what it says."""

import inspect
import textwrap
from typing import Any

import pytest
import torch

import edgeprune.channels as room


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (inspect.getdoc(room) or "").partition("::\n\n")[2]
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("    "))
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(textwrap.dedent("\n".join(lines[:end])), names)
    printed = capsys.readouterr().out
    assert "0.weight" in printed
    assert "3.weight[0]: output, by output" in printed
    groups, removed = names["groups"], names["removed"]
    assert removed.sum() == 8
    smaller, batch = names["smaller"], torch.rand(2, 3, 32, 32)
    assert room.analyse(smaller).totals() == groups.totals(removed)
    expected = room.masked(names["model"], groups, removed)(batch)
    torch.testing.assert_close(smaller.module()(batch), expected)
