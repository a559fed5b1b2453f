# SPDX-License-Identifier: Apache-2.0
"""Sizes and times: read as written, written so that they can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.units import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0B", 0),
        ("1b", 1),
        ("2MB", 2_000_000),
        ("2 mb", 2_000_000),
        (" 512 KiB ", 524_288),
        ("1.5MiB", 1_572_864),
        (".5GB", 500_000_000),
        ("1.1kB", 1100),
        ("4GiB", 4 << 30),
    ],
)
def test_bytes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("25ms", 0.025), ("800us", 8e-4), ("800µs", 8e-4), ("1.5 s", 1.5), ("0.5S", 0.5)],
)
def test_seconds_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "MB", "2", "2 M", "2 megabytes", "-2MB", "1,5MB", "1e6B", "2MB 3", "2.MB", "0x2B", "٣MB"],
)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write a number with a unit of B, kB, MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["25", "25 m", "1 min", "1h", "-1ms", "infs", "nan s"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write a number with a unit of us, ms, s"):
        parse_seconds(text)


def test_a_number_beyond_all_measure_is_no_size() -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        parse_bytes("9" * 400 + "MB")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (271_432, "271 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (1_090_000, "1.09 MB"),
        (98.6e6, "98.6 MB"),
        (1.5e9, "1.5 GB"),
        (2.5e12, "2500 GB"),
    ],
)
def test_bytes_are_written(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (3.6e-7, "0.36 us"),
        (8.12e-4, "812 us"),
        (0.0009996, "1 ms"),
        (0.025, "25 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"),
        (1234.0, "1234 s"),
    ],
)
def test_seconds_are_written(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(0, 10**15))
def test_written_bytes_are_read_back_to_three_digits(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=5.1e-3, abs=0)


@given(st.floats(1e-9, 1e6))
def test_written_seconds_are_read_back_to_three_digits(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, rel=5.1e-3)


@given(st.text())
def test_any_text_is_a_size_or_a_clear_error(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except ValueError as error:
        assert "is no quantity" in str(error)
