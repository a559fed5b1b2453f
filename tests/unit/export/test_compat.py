# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.export.compat import oldest_runtime_blockers


def test_what_stops_the_oldest_runtime_is_named(lite):
    (blocker,) = oldest_runtime_blockers(lite("int8-dynamic").path)
    assert blocker == (
        "tflite-runtime 2.14 refuses FULLY_CONNECTED version 12 (it has up to version 10)"
    )


@pytest.mark.parametrize("numerics", ["fp32", "int8", "int8-weights", "fp16"])
def test_the_others_run_there(lite, numerics):
    assert oldest_runtime_blockers(lite(numerics).path) == []
