# SPDX-License-Identifier: Apache-2.0
"""No data, manifest, lock file or TOML, however broken, does more than be refused in one line."""

import random
from pathlib import Path

import pytest

from tests.fuzz.files import FORMS, changed, judge, seeds
from tests.fuzz.loop import in_a_process
from tests.fuzz.mutate import broken


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model"


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_files_are_read(form: str, place: Path) -> None:
    assert {judge(form, content, place) for content in seeds(form)} == {"read"}


@pytest.mark.parametrize("form", FORMS)
def test_broken_files_are_read_or_refused(form: str, place: Path) -> None:
    chance, whole = random.Random(0), seeds(form)
    for _ in range(40):
        judge(form, broken(chance.choice(whole), chance.choice(whole), chance), place)


@pytest.mark.parametrize("form", FORMS[1:])
def test_whole_files_of_other_values_are_read_or_refused(form: str, place: Path) -> None:
    chance = random.Random(0)
    for _ in range(40):
        judge(form, changed(chance.choice(seeds(form)), chance), place)


@pytest.mark.fuzz
@pytest.mark.parametrize("form", FORMS)
def test_a_while_of_broken_files_in_limited_memory(
    form: str, request: pytest.FixtureRequest
) -> None:
    """In a process of its own, whose memory is limited; it prints what it did."""
    in_a_process("files", form, 8, request)
