# SPDX-License-Identifier: Apache-2.0
"""The TOML loader: strict types; errors name the file, the key, what is allowed and was given."""

from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from edgeprune.errors import ConfigError
from edgeprune.toml import Config, load, parse


class Inner(Config):
    count: Annotated[int, Field(ge=1)] = 1
    share: float = 0.5
    words: tuple[str, ...] = ()
    choice: Literal["one", "two"] | Annotated[int, Field(ge=10)] = "one"
    pair: tuple[int, int] | None = None
    path: Path | None = None

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.count == 13:
            raise ValueError("13 is bad luck")
        return self


class Outer(Config):
    needed: str
    inner: Inner = Inner()
    maybe: Inner | None = None


def message(table: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(table, Outer, "here")
    return str(caught.value).removeprefix("here: ")


def test_defaults_are_filled_in() -> None:
    assert parse({"needed": "x"}, Outer, "here") == Outer(needed="x")


def test_toml_types_become_python_ones() -> None:
    table = {"needed": "x", "inner": {"share": 1, "words": ["a"], "pair": [1, 2], "path": "a/b"}}
    inner = parse(table, Outer, "here").inner
    assert inner.share == 1.0
    assert inner.words == ("a",)
    assert inner.pair == (1, 2)
    assert inner.path == Path("a/b")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, "key 'needed' is missing"),
        ({"neded": "x"}, "key 'needed' is missing (and 1 more wrong key)"),
        ({"needed": "x", "iner": 1}, "unknown key 'iner'; did you mean 'inner'?; allowed: inner,"),
        (
            {"needed": "x", "maybe": {"cuont": 1}},
            "unknown key 'maybe.cuont'; did you mean 'count'?; allowed: choice, count, pair,",
        ),
        ({"needed": "x", "zzz": 1}, "unknown key 'zzz'; allowed: inner, maybe, needed"),
        ({"needed": 3}, "key 'needed' should be a valid string, got 3"),
        ({"needed": "x", "inner": []}, "key 'inner' should be a table, [inner], got []"),
        (
            {"needed": "x", "inner": {"choice": "twoo"}},
            "key 'inner.choice' should be 'one' or 'two', or be a valid integer, got \"twoo\"; "
            "did you mean 'two'?",
        ),
        (
            {"needed": "x", "inner": {"choice": 3}},
            "key 'inner.choice' should be 'one' or 'two', or be greater than or equal to 10, got 3",
        ),
        (
            {"needed": "x", "inner": {"words": ["a", 1]}},
            "key 'inner.words.1' should be a valid string, got 1",
        ),
        ({"needed": "x", "inner": {"count": 13}}, "key 'inner': 13 is bad luck"),
        ({"needed": "x", "inner": {"count": 1.5}}, "key 'inner.count' should be a valid integer"),
        (
            {"needed": "x", "inner": {"share": float("inf")}},
            "key 'inner.share' should be a finite number, got Infinity",
        ),
    ],
)
def test_errors_say_what_is_wrong(table: dict[str, object], expected: str) -> None:
    assert message(table).startswith(expected)


@pytest.mark.parametrize(
    ("key", "value"), [("count", "1"), ("count", True), ("share", "0.5"), ("share", False)]
)
def test_nothing_is_converted_silently(key: str, value: object) -> None:
    assert f"key 'inner.{key}' should be a valid" in message({"needed": "x", "inner": {key: value}})


def test_the_place_of_a_syntax_error_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('needed = "x"\ninner = {\nx = 1')
    with pytest.raises(ConfigError, match=r"x\.toml: is no TOML: .*line 2"):
        load(path, Outer)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["needed", "inner", "count", "words", "choice", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["needed", "inner", "maybe", "x"]), values, max_size=4))
def test_any_table_is_read_or_refused_in_one_line(table: dict[str, object]) -> None:
    try:
        parse(table, Outer, "here")
    except ConfigError as error:
        assert str(error).startswith("here: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x = " + b"[" * 20_000, "too deeply"),
        (b"#" * 2**21, "more than 1048576 bytes"),
        (b"", "a device, where a file is needed"),
    ],
)
def test_a_file_that_means_harm(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.toml"
    if content:
        path.write_bytes(content)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=told):
        load(path, Outer)


def test_a_text_that_is_none() -> None:
    assert message({"needed": "\udcff.pt2"}) == "a text has bytes that are no UTF-8"
