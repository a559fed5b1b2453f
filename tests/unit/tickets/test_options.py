# SPDX-License-Identifier: Apache-2.0
"""What to find: what is allowed, what isn't, and what is said of it."""

from pathlib import Path
from typing import Any, get_args

import pytest

from edgeprune.cli.ticket.options import options
from edgeprune.errors import ConfigError, InputError
from edgeprune.tickets.catalogue import used_options
from edgeprune.tickets.options import METHODS, Method, TicketOptions
from edgeprune.toml import load, parse


def test_the_methods_are_the_methods() -> None:
    assert get_args(Method) == METHODS


def test_an_empty_file_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("")
    assert load(path, TicketOptions) == TicketOptions()


def test_each_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(
        'method = "rigl"\ndensity = 0.05\nalloc = "erk"\nexclude = ["head*"]\n'
        '[densities]\n"conv*" = 0.5\n'
        '[train]\nepochs = 3\noptimizer = "adamw"\n'
        "[imp]\nrate = 0.5\nrewind = 0.1\n[gradual]\nevery = 7\n"
        "[at_init]\niterations = 9\n[early_bird]\nwindow = 3\n[dynamic]\nfraction = 0.4\n"
    )
    found = load(path, TicketOptions)
    assert (found.method, found.density, found.alloc) == ("rigl", 0.05, "erk")
    assert found.exclude == ("head*",)
    assert found.densities == {"conv*": 0.5}
    assert (found.train.epochs, found.train.optimizer) == (3, "adamw")
    assert (found.imp.rate, found.gradual.every, found.at_init.iterations) == (0.5, 7, 9)
    assert (found.early_bird.window, found.dynamic.fraction) == (3, 0.4)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"density": 0}, r"key 'density' should be greater than 0, got 0"),
        ({"density": 1.5}, r"key 'density' should be less than or equal to 1, got 1\.5"),
        ({"density": -0.1}, r"key 'density' should be greater than 0"),
        ({"density": float("nan")}, r"key 'density'"),
        ({"method": "snap"}, r"key 'method' .*did you mean 'snip'\?"),
        ({"alloc": "uniforn"}, r"key 'alloc' .*did you mean 'uniform'\?"),
        ({"criterion": "size"}, r"key 'criterion'"),
        ({"pattern": "2/4"}, r"key 'pattern'"),
        ({"densities": {"conv": 1.2}}, r"key 'densities\.conv' should be less than or equal to 1"),
        ({"imp": {"rate": 1.0}}, r"key 'imp\.rate' should be less than 1"),
        ({"imp": {"rewind": 1.0}}, r"key 'imp\.rewind' should be less than 1"),
        ({"early_bird": {"window": 1}}, r"key 'early_bird\.window'"),
        ({"at_init": {"iterations": 0}}, r"key 'at_init\.iterations'"),
        ({"dinamic": {}}, r"unknown key 'dinamic'; did you mean 'dynamic'\?; allowed: alloc, "),
        ({"train": {"epoch": 3}}, r"unknown key 'train\.epoch'; did you mean 'epochs'\?"),
    ],
)
def test_bad_values_are_one_line(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse(table, TicketOptions, "t.toml")
    assert str(caught.value).startswith("t.toml: ")
    assert "\n" not in str(caught.value)


def test_a_pattern_says_the_density() -> None:
    given = {"method": "one-shot", "pattern": "1:4"}
    assert options(None, given).density == 0.25
    assert options(None, {**given, "density": 0.2}).density == 0.2


@pytest.mark.parametrize(
    ("given", "data", "key"),
    [
        ({"method": "one-shot", "at_init.samples": 7}, True, "at_init.samples"),
        ({"method": "gradual", "at_init.samples": 512}, True, "at_init.samples"),
        (
            {"method": "gradual", "criterion": "movement", "at_init.samples": 7},
            True,
            "at_init.samples",
        ),
        ({"method": "snip", "pattern": "2:4", "at_init.iterations": 5}, True, "at_init.iterations"),
        ({"method": "synflow", "pattern": "2:4", "at_init.iterations": 9}, False, ""),
        ({"method": "one-shot", "train.learning_rate": 3.0}, False, ""),
        ({"method": "one-shot", "train.batch_size": 5}, False, ""),
        ({"method": "one-shot", "train.epochs": 5}, False, ""),
    ],
)
def test_what_would_do_nothing_beside_the_others_is_refused(
    given: dict[str, Any], data: bool, key: str
) -> None:
    with pytest.raises(InputError, match=r"^--\S+: isn't used by .*; leave it out$"):
        options(None, given, data=data)
    if key:  # nor is it told as one that decides the result
        given = {name: value for name, value in given.items() if name != key}
        assert key not in used_options(options(None, given, data=data))


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"method": "one-shot", "criterion": "fisher", "at_init.samples": 7}, True),
        ({"method": "gradual", "criterion": "saliency", "at_init.samples": 7}, True),
        ({"method": "snip", "at_init.samples": 7, "at_init.iterations": 5}, True),
        ({"method": "snip", "pattern": "2:4", "at_init.iterations": 1}, True),
        ({"method": "one-shot", "train.learning_rate": 3.0, "train.epochs": 2}, True),
        ({"method": "one-shot", "train.epochs": 0}, False),
        ({"method": "ntk-sap", "at_init.samples": 7}, False),
        ({"method": "imp", "train.learning_rate": 3.0}, False),  # told that it needs data
        *(({"method": method}, data) for method in METHODS for data in (True, False)),
        *(({"method": method, "pattern": "2:4"}, True) for method in ("snip", "synflow", "imp")),
    ],
)
def test_what_does_something_is_taken(given: dict[str, Any], data: bool) -> None:
    found = options(None, given, data=data)
    assert "at_init.iterations" not in given or found.at_init.iterations
    used = used_options(found)
    assert all(key in used for key in given if key != "at_init.iterations")


def test_a_recipe_is_refused_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('method = "one-shot"\n[train]\nmomentum = 0.5\n')
    assert options(path, {}).train.momentum == 0.5
    with pytest.raises(InputError, match=r"t\.toml: key 'train\.momentum': isn't used by one-shot"):
        options(path, {}, data=False)
