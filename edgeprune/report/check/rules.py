# SPDX-License-Identifier: Apache-2.0
"""What each rule of a check means, for services that show its help."""

from typing import NamedTuple

from edgeprune.gate.judged import Rule

__all__ = ["RULES", "Help"]


class Help(NamedTuple):
    """One rule in words."""

    name: str
    """One word in CamelCase."""
    short: str
    """One sentence."""
    full: str
    """What is judged, and what to do where it fails."""


_FIT = "Prune more, or use a smaller number type; or raise the limit where it is written."
_FASTER = "Prune more, or use the faster artifact; or raise the limit where it is written."
_AGAIN = (
    "See which layers grew; where the growth is meant, "
    "`edgeprune baseline accept` takes the new figures with a reason."
)
_REMAKE = "Run `edgeprune compress` again, and commit its manifest and its files together."

RULES: dict[Rule, Help] = {
    "budget/size": Help(
        "SizeBudget",
        "The file is no larger than its budget.",
        f"The bytes of the file, counted, against the limit of the target. {_FIT}",
    ),
    "budget/latency": Help(
        "LatencyBudget",
        "The median latency on the device keeps its budget.",
        "The median time of one inference, measured on the device of the target, against the "
        "limit. An interval that lies on both sides of the limit is inconclusive: measure longer "
        f"on a quiet device, or leave more room. {_FASTER}",
    ),
    "budget/memory": Help(
        "MemoryBudget",
        "The peak memory on the device keeps its budget.",
        "The peak memory of the process, or the arena of a microcontroller, against the limit. "
        "Prune more, or use smaller inputs; or raise the limit where it is written.",
    ),
    "budget/drop": Help(
        "DropBudget",
        "The artifact loses no more than its budget against the dense model.",
        "The difference between the dense model's score and the artifact's, in points, on the "
        "evaluation data. Prune less, or fine-tune longer; or raise the limit where it is written.",
    ),
    "baseline/size": Help(
        "SizeBaseline",
        "The file hasn't grown past what the baseline allows.",
        f"The bytes of the file against those in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/latency": Help(
        "LatencyBaseline",
        "The latency hasn't grown past what the baseline allows.",
        "The median latency against that in `edgeprune.lock.json`; from another machine only as "
        f"the ratio to a reference model that was measured in the same run. {_AGAIN}",
    ),
    "baseline/memory": Help(
        "MemoryBaseline",
        "The peak memory hasn't grown past what the baseline allows.",
        f"The peak memory against that in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/accuracy": Help(
        "AccuracyBaseline",
        "The score hasn't fallen past what the baseline allows.",
        f"The score on the evaluation data against that in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/macs": Help(
        "MacsBaseline",
        "The multiply-accumulates haven't grown past what the baseline allows.",
        f"Those counted in the file against those in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/parameters": Help(
        "ParametersBaseline",
        "The parameters haven't grown past what the baseline allows.",
        f"Those counted in the file against those in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/arena": Help(
        "ArenaBaseline",
        "The estimated activation memory hasn't grown past what the baseline allows.",
        f"What the file's tensors take against that in `edgeprune.lock.json`. {_AGAIN}",
    ),
    "baseline/shapes": Help(
        "ShapesBaseline",
        "Inputs and outputs have the shapes and types that were accepted.",
        "Those of the file against those in `edgeprune.lock.json`. Where the change is meant, "
        "`edgeprune baseline accept` takes the new ones with a reason.",
    ),
    "baseline/missing": Help(
        "MissingBaseline",
        "What is judged against a baseline has one, and what the baseline has is still there.",
        "A lock file, model or artifact that is gone would end what it is judged by. Put it back, "
        "or let `edgeprune baseline accept` take the project as it is, with a reason.",
    ),
    "target/format": Help(
        "TargetFormat",
        "The target has a runtime for files of this format.",
        "The format of the file against those of the target's runtimes. Use a file that it takes.",
    ),
    "target/numerics": Help(
        "TargetNumerics",
        "The layers compute in numbers that the target's runtime takes.",
        "The types that the file's layers multiply in against the runtime's `numerics`. Quantize "
        "the model to one of these.",
    ),
    "target/operators": Help(
        "TargetOperators",
        "The target's runtime has kernels for all operators.",
        "The operators of the file against the runtime's list. Replace them in the model, or name "
        "them in the target's `custom` if your build of the runtime has them.",
    ),
    "target/memory": Help(
        "TargetMemory",
        "The estimated activation memory fits the target.",
        "What the file's tensors take at least, planned without the runtime, against the limit of "
        "a microcontroller's arena or the memory of the device. Prune more, or use smaller inputs.",
    ),
    "integrity/missing": Help(
        "MissingFile",
        "Each file that a manifest names is there.",
        f"A file that isn't there can't be judged. {_REMAKE}",
    ),
    "integrity/hash": Help(
        "FileHash",
        "Each file is the one that its manifest describes.",
        f"The SHA-256 of the file against that in its manifest. {_REMAKE}",
    ),
    "integrity/edited": Help(
        "EditedManifest",
        "The figures of a manifest are those that its files give.",
        f"What can be read off the file, counted anew, against the manifest. {_REMAKE}",
    ),
    "integrity/origin": Help(
        "FigureOrigin",
        "Each figure of a manifest says where it comes from.",
        f"A measured figure has a machine, a date and a number of runs. {_REMAKE}",
    ),
}
