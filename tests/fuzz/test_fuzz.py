# SPDX-License-Identifier: Apache-2.0
"""No file, however broken, does more than be refused in one line."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from tests.fuzz.loop import in_a_process
from tests.fuzz.mutate import broken, judge, seeds
from tests.fuzz.rearrange import rearranged

FORMS = ("onnx", "tflite")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model"


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_files_are_read(form: str, place: Path) -> None:
    assert {judge(content, place) for content in seeds(form)} == {"read"}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_broken_files_are_read_or_refused(form: str, place: Path, seed: int) -> None:
    chance, whole = random.Random(seed), seeds(form)
    judge(broken(chance.choice(whole), chance.choice(whole), chance), place)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_whole_files_of_broken_models_are_read_or_refused(
    form: str, place: Path, seed: int
) -> None:
    judge(rearranged(form, random.Random(seed)), place)


@settings(max_examples=200)
@given(content=st.binary(max_size=200))
def test_noise_is_read_or_refused(place: Path, content: bytes) -> None:
    judge(content, place)
    judge(content[:4] + b"TFL3" + content[4:], place)


@pytest.mark.parametrize("form", FORMS)
def test_no_part_of_a_file_is_taken_for_the_whole(form: str, place: Path) -> None:
    """Cut anywhere it is refused, but where a field that isn't needed stood behind the rest."""
    for content in seeds(form):
        results = {judge(content[:length], place) for length in range(0, len(content) // 2, 3)}
        assert results == {"refused"}


@pytest.mark.fuzz
@pytest.mark.parametrize("form", FORMS)
def test_half_a_minute_of_broken_files_in_limited_memory(
    form: str, request: pytest.FixtureRequest
) -> None:
    """In a process of its own, whose memory is limited; it prints what it did."""
    in_a_process("mutate", form, 30, request)


def test_the_judge_lets_no_other_error_pass(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would hold for a reader that fails anyhow."""
    monkeypatch.setattr("edgeprune.artifact.reading.opened", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judge(b"", place)
    with pytest.raises(AssertionError):
        _raise_in_judge(place, monkeypatch)


def _raise_in_judge(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_lines(path: Path) -> None:
        raise InputError("one\ntwo")

    monkeypatch.setattr("tests.fuzz.mutate.read", two_lines)
    judge(b"", place)
