# SPDX-License-Identifier: Apache-2.0
from importlib import import_module
from pathlib import Path

import pytest

from edgeprune import inputs
from edgeprune.job import DataSource, Source
from edgeprune.model import save
from edgeprune.model.archive import open_archive
from edgeprune.progress import Silent
from tests.unit.model.nets import captured


def test_a_program_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    save(captured("digits_cnn"), path)
    opened: list[Path] = []

    def counted(file: Path, *, trusted: bool = False):
        opened.append(file)
        return open_archive(file, trusted=trusted)

    monkeypatch.setattr(inputs, "open_archive", counted)
    # By name: the package has a function of the same name as its module.
    monkeypatch.setattr(import_module("edgeprune.model.load"), "open_archive", counted)
    loaded, data = inputs.open_inputs(Source(path), DataSource("digits"), 0, Silent())
    assert opened == [path]
    assert data is not None and loaded.model.fingerprint() == captured("digits_cnn").fingerprint()
