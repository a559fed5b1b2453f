# SPDX-License-Identifier: Apache-2.0
"""What ``make demo`` promises."""

from pathlib import Path

import pytest

from edgeprune.cli.main import main
from edgeprune.demo import TARGETS
from edgeprune.report import read_report
from tests.e2e.support import tree


@pytest.mark.slow
def test_demo_is_four_times_smaller_and_loses_at_most_a_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--threads", "1"]) == 0
    assert capsys.readouterr().out.count("Stage by stage") == len(TARGETS)
    dense = read_report(out / "rpi4" / "report.json").profile["dense.onnx"]["bytes"].value
    for target in TARGETS:
        report = read_report(out / target / "report.json")
        assert report.metric == "accuracy"
        assert report.artifacts, target
        for artifact in report.artifacts:
            assert artifact.numerics == "int8"
            assert 4 * artifact.bytes <= dense, (target, artifact.file)
            assert report.profile[artifact.file]["drop"].value <= 1.0, (target, artifact.file)
    assert {path.split("/")[0] for path in tree(out)} == {"digits.pt2", *TARGETS}
