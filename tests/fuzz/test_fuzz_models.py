# SPDX-License-Identifier: Apache-2.0
"""No model file and no ticket, however broken, does more than be refused in one line."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.loop import in_a_process
from tests.fuzz.models import FORMS, changed, judge, seeds
from tests.fuzz.mutate import broken


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model"


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_files_are_read(form: str, place: Path) -> None:
    assert {judge(form, content, place) for content in seeds(form)} == {"read"}


@pytest.mark.parametrize("form", ["archive", "ticket"])
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_broken_files_are_read_or_refused(form: str, place: Path, seed: int) -> None:
    chance, whole = random.Random(seed), seeds(form)
    judge(form, broken(chance.choice(whole), chance.choice(whole), chance), place)


@pytest.mark.parametrize("form", ["pt2", "pt"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whole_archives_of_broken_members_are_read_or_refused(
    form: str, place: Path, seed: int
) -> None:
    chance = random.Random(seed)
    judge(form, changed(chance.choice(seeds(form)), chance), place)


@pytest.mark.fuzz
@pytest.mark.parametrize("form", FORMS)
def test_half_a_minute_of_broken_files_in_limited_memory(
    form: str, request: pytest.FixtureRequest
) -> None:
    """In a process of its own, whose memory is limited; it prints what it did."""
    in_a_process("models", form, 30, request)
