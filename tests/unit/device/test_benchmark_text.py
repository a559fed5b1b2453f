# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.benchmark_text import Op, failure, parse_benchmark
from edgeprune.errors import DeviceError
from tests.unit.device.fake_adb import RECORDED


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


# file, load, first and last mean in us, runs, growth in MiB
FIGURES = [
    ("tensorflow-1.txt", 9933, 127425, 66767.6, 15, None),
    ("tensorflow-2.3.txt", 855, 49060, 33209.4, 50, 12.8672),
    ("tensorflow-2.8-ops.txt", 17187, 3512391, 2950340, 50, 46.0859),
    ("tensorflow-2.15-npu.txt", 25573, 201009, 1096.48, 876, 43.2852),
    ("litert.txt", 87639, 106436, 105784, 50, 14.8164),
    ("litert-ops.txt", 32163, 19834, 15517.6, 64, 34.8281),
]


def test_every_recorded_output_is_among_the_cases() -> None:
    assert {case[0] for case in FIGURES} == {path.name for path in RECORDED.glob("*.txt")}


@pytest.mark.parametrize(("name", "load", "first", "mean", "count", "growth"), FIGURES)
def test_each_version_gives_its_figures(
    name: str, load: float, first: float, mean: float, count: int, growth: float | None
) -> None:
    found = parse_benchmark(recorded(name))
    assert found.load == pytest.approx(load / 1e6)
    assert found.warmup.seconds["first"] == pytest.approx(first / 1e6)
    assert found.runs.seconds["avg"] == pytest.approx(mean / 1e6)
    assert found.runs.count == count
    assert found.growth == (None if growth is None else round(growth * 1024 * 1024))
    assert found.peak is None


def test_percentiles_are_there_only_where_they_were_printed() -> None:
    new = parse_benchmark(recorded("litert.txt")).runs.seconds
    assert (new["p5"], new["median"], new["p95"]) == pytest.approx((0.105485, 0.105718, 0.106281))
    old = parse_benchmark(recorded("tensorflow-2.15-npu.txt")).runs.seconds
    assert set(old) == {"first", "min", "max", "avg", "std"}


def test_what_ran_it() -> None:
    npu, cpu = (parse_benchmark(recorded(f"{n}.txt")) for n in ("tensorflow-2.15-npu", "litert"))
    assert (npu.version, npu.xnnpack) == ("2.15.0", False)
    assert (cpu.version, cpu.xnnpack) == (None, True)


def test_operators_with_and_without_their_start() -> None:
    old = parse_benchmark(recorded("tensorflow-2.8-ops.txt")).ops
    assert len(old) == 7  # not those of the initialization, nor the ten slowest again
    assert old[0] == Op("[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0", "CONV_2D", 0.060957, 1)
    new = parse_benchmark(recorded("litert-ops.txt")).ops
    assert [op.type for op in new] == [
        "QUANTIZE",
        "Convolution (NHWC, QC8) IGEMM",
        "Convolution (NHWC, QC8) DWConv",
        "Convolution (NHWC, QC8) GEMM",
        "Add (ND, QS8)",
    ]
    # the table has ms a call: 13 calls of 0.051 ms are its 4.317 % of 15.4 ms
    assert (new[2].seconds, new[2].calls) == (pytest.approx(13 * 0.051e-3), 13)
    assert parse_benchmark(recorded("litert.txt")).ops == ()


def test_the_peak_where_it_was_asked_for() -> None:
    line = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383\n"
    assert parse_benchmark(recorded("litert.txt") + line).peak == round(93.2383 * 1024 * 1024)


def test_the_line_ends_of_old_adb_are_no_matter() -> None:
    text = recorded("litert-ops.txt")
    assert parse_benchmark(text.replace("\n", "\r\n")) == parse_benchmark(text)


@pytest.mark.parametrize("name", [case[0] for case in FIGURES])
def test_a_text_that_was_cut_off_gives_no_figures(name: str) -> None:
    text = recorded(name)
    second = text.rindex("count=", 0, text.index("nference timings in us"))
    with pytest.raises(DeviceError, match=r"^benchmark_model didn't get to its end: .+$"):
        parse_benchmark(text[:second])


def test_the_error_is_the_tools_own() -> None:
    text = (
        "INFO: STARTING!\nINFO: Loaded model m0.tflite\n"
        "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '99'.\n"
        "ERROR: Benchmarking failed.\n"
    )
    assert failure(text) == "Didn't find op for builtin opcode 'CONV_2D' version '99'."
    with pytest.raises(DeviceError, match="version '99'"):
        parse_benchmark(text)
    assert failure("") == "it printed nothing"


@given(st.text(max_size=200))
def test_any_other_text_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(DeviceError) as caught:
        parse_benchmark(text)
    assert len(str(caught.value).splitlines()) == 1
