# SPDX-License-Identifier: Apache-2.0
"""What to find: what is allowed, what isn't, and what is said of it."""

from pathlib import Path
from typing import Any, get_args

import pytest

from edgeprune.cli.ticket.options import options
from edgeprune.errors import ConfigError
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
