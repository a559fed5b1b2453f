# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from functools import cache

import pytest

from edgeprune.recipe import Numerics
from tests.unit.export.lite import Written, cnn, written


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Numerics], Written]:
    """The digits network as TFLite, by numerics; each is converted once."""

    @cache
    def make(numerics: Numerics) -> Written:
        return written(tmp_path_factory.mktemp(numerics), cnn(numerics))

    return make
