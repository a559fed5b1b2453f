# SPDX-License-Identifier: Apache-2.0
"""Several boards at once."""

import threading
from pathlib import Path

import pytest

from edgeprune.deploy.fleet import each, read_inventory
from edgeprune.errors import ConfigError, DeviceError
from edgeprune.progress import Progress, Silent


def test_one_that_fails_does_not_stop_the_others() -> None:
    together = threading.Barrier(3, timeout=60)

    def work(name: str, progress: Progress) -> str:
        together.wait()
        if name == "b":
            raise DeviceError("dead")
        with progress.bar("upload", 1) as bar:
            bar.advance()
        return name.upper()

    results = each(["a", "b", "c"], work, Silent())
    assert [(r.name, r.value, str(r.error)) for r in results] == [
        ("a", "A", "None"),
        ("b", None, "dead"),
        ("c", "C", "None"),
    ]


def test_all_stop_at_their_next_step_where_one_is_interrupted() -> None:
    stopped = []
    all_at_work = threading.Barrier(3)  # what hasn't begun yet never does

    def work(name: str, progress: Progress) -> None:
        all_at_work.wait(60)
        if name == "a":
            raise KeyboardInterrupt
        try:
            while True:
                progress.say(name)
                threading.Event().wait(0.01)
        except DeviceError as error:
            stopped.append((name, str(error)))
            raise

    with pytest.raises(KeyboardInterrupt):
        each(["a", "b", "c"], work, Silent())
    assert sorted(stopped) == [("b", "interrupted"), ("c", "interrupted")]


def test_an_inventory_has_a_table_for_each_board(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(
        '[kitchen]\nto = "ssh://pi@kitchen:/opt/m"\n'
        '["the hall"]\nto = "local:/opt/m"\nhealth_command = "true"\n'
    )
    boards = read_inventory(path)
    assert list(boards) == ["kitchen", "the hall"]
    assert boards["kitchen"].to == "ssh://pi@kitchen:/opt/m"
    assert boards["the hall"].health_command == "true"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no board"),
        ('kitchen = "ssh://x"', r"key 'kitchen' should be a table"),
        ("[kitchen]", r"\[kitchen\]: key 'to' is missing"),
        ('[kitchen]\nto = "local:/x"\nport = 3', r"\[kitchen\]: unknown key 'port'"),
        ("[kitchen", "is no TOML"),
    ],
)
def test_a_wrong_inventory_names_the_board_and_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_inventory(path)
