# SPDX-License-Identifier: Apache-2.0
"""Reports of checks to render."""

from edgeprune.figure import Figure, counted, measured
from edgeprune.gate.judged import CheckReport, Judged, Place
from edgeprune.report.check import Point

WHEN = "2026-03-04T05:06:07Z"
CLASSIFIER = {"model": "classifier", "target": "rpi4"}
MODEL = "dist/rpi4/model.onnx"

HOSTILE = (
    "",
    " ",
    "a \"quoted\" 'name' \\",
    "two\nlines\r\nand\rmore\u2028yes\u2029\x85end",
    "x]]>y<![CDATA[z",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a|b\\|c\\",
    "%0A%0D::error::%3A%2C",
    "x\n::error file=a::b\n##[error]c",
    "::add-mask::all",
    "\x00\x01\x1b[31mred\x07\x7f\ufffe\uffff",
    "n" * 10_000,
    "\u05d0\u05d1 \u202eexe.xnno\u202c \u0627\u0644",
    "`a``b` *b* __c__ [d](e) ![f](g) ~~h~~ $i$",
    "@everyone #1 !2 &3 ~4 %5 user@host.org https://host.org www.host.org",
    "[bold red]rich[/] :smile:",
    "../../etc/passwd",
    "/absolute/\u00fc\u4e2d.onnx",
    "\U0001f600 e\u0301",
    "no-utf8-\udcff.onnx",
)


def on_board(value: float, low: float, high: float) -> Figure:
    return measured(
        value, "s", "median of 5 blocks", where="pi", when=WHEN, runs=500, low=low, high=high
    )


def bytes_of(value: float) -> Figure:
    return counted(value, "B", "size of the file")


def judged() -> tuple[Judged, ...]:
    """Every outcome, with and without figure, limit, baseline, blame and place."""
    return (
        Judged(
            rule="budget/size",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="fail",
            reason="size 2.31 MB is over the limit of 2 MB (counted): prune more.",
            unit="B",
            figure=bytes_of(2_310_000),
            limit=2e6,
            place=Place(file="edgeprune.toml", line=12),
        ),
        Judged(
            rule="budget/latency",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="inconclusive",
            reason="median latency 24.6 ms (23.9 ms to 25.4 ms) lies on both sides of 25 ms.",
            unit="s",
            figure=on_board(0.0246, 0.0239, 0.0254),
            limit=0.025,
            place=Place(file="edgeprune.toml", line=13),
        ),
        Judged(
            rule="budget/memory",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="not measured",
            reason="the limit of 64 MB is not judged: peak memory was not measured on rpi4.",
            unit="B",
            limit=64e6,
            place=Place(file="edgeprune.toml", line=14),
        ),
        Judged(
            rule="baseline/size",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="fail",
            reason="size 2.31 MB is 16 % over the baseline's 1.99 MB, and 2 % are allowed.",
            unit="B",
            figure=bytes_of(2_310_000),
            limit=2_029_800,
            baseline=bytes_of(1_990_000),
            blame=("features.7.conv: +262 kB", "classifier.1: +58 kB"),
            place=Place(file="edgeprune.toml", line=15),
        ),
        Judged(
            rule="baseline/latency",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="pass",
            reason="median latency 24.6 ms is 2 % over the baseline's, and 5 % are allowed.",
            unit="s",
            figure=on_board(0.0246, 0.0239, 0.0254),
            limit=0.0253,
            baseline=on_board(0.0241, 0.0236, 0.0247),
        ),
        Judged(
            rule="integrity/hash",
            **CLASSIFIER,
            artifact=MODEL,
            outcome="pass",
            reason="the SHA-256 is that of the manifest.",
        ),
        Judged(
            rule="integrity/missing",
            model="wakeword",
            target="stm32h7",
            artifact="dist/stm32h7/model_int8.tflite",
            outcome="fail",
            reason="the manifest names it, and it isn't there: run `edgeprune compress` again.",
        ),
        Judged(
            rule="budget/size",
            model=None,
            target=None,
            artifact="vendor/kws.tflite",
            outcome="pass",
            reason="size 53.9 kB keeps the limit of 100 kB (counted).",
            unit="B",
            figure=bytes_of(53_936),
            limit=1e5,
        ),
    )


def report(
    *rows: Judged, strict: bool = False, notes: tuple[str, ...] = ("the board ran hot: 78 C",)
) -> CheckReport:
    return CheckReport(
        judged=rows or judged(),
        strict=strict,
        allow_unmeasured=not strict,
        notes=notes,
        when=WHEN,
        edgeprune="0.1.0",
    )


def passed() -> CheckReport:
    return report(*(each for each in judged() if each.outcome == "pass"), notes=())


def empty() -> CheckReport:
    return CheckReport(judged=(), allow_unmeasured=True, when=WHEN, edgeprune="0.1.0")


def hostile(name: str) -> CheckReport:
    """``name`` wherever a text may stand."""
    rows = [
        Judged(
            rule="budget/size",
            model=name,
            target=name,
            artifact=name,
            outcome=outcome,
            reason=name,
            unit="B",
            figure=counted(1.0, "B", name),
            limit=2.0,
            baseline=counted(1.0, "B", name),
            blame=(name, name),
            place=Place(file=name, line=3),
        )
        for outcome in ("fail", "inconclusive", "not measured", "pass")
    ]
    rows.append(rows[0].model_copy(update={"place": None}))
    return CheckReport(judged=tuple(rows), notes=(name,), when=WHEN, edgeprune=name or "0")


def history(commits: int = 9) -> tuple[Point, ...]:
    """Three artifacts: one is new after a while, one is measured now and then."""
    points = []
    for i in range(commits):
        big = 2_310_000 if i < commits // 2 else 1_990_000 + 4_000 * i
        slow = 0.0246 + 0.0011 * ((i * 7) % 5) / 5
        figures = {
            "classifier for rpi4: model.onnx": {
                "size": bytes_of(big),
                "latency": on_board(slow, 0.97 * slow, 1.04 * slow),
                "accuracy": _score(91.2 + 0.1 * ((i * 5) % 7)),
            },
            "classifier for rpi4: model_int8.onnx": {"size": bytes_of(big / 3.6)},
        }
        if i % 4 != 2:
            fast = slow / 2.4
            figures["classifier for rpi4: model_int8.onnx"].update(
                latency=on_board(fast, 0.95 * fast, 1.06 * fast), accuracy=_score(90.4)
            )
        if i >= commits // 3:
            figures["wakeword for stm32h7: model_int8.tflite"] = {"size": bytes_of(98_600 + i)}
        day = f"2026-{1 + i // 28 % 12:02}-{1 + i % 28:02}T10:00:00Z"
        points.append(Point(f"{i * 7919:07x}{'c' * 33}", day, figures))
    return tuple(points)


def _score(value: float) -> Figure:
    return measured(
        value,
        "%",
        "top-1",
        where="a desk",
        when=WHEN,
        runs=10_000,
        low=value - 0.5,
        high=value + 0.5,
    )
