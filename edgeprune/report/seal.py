# SPDX-License-Identifier: Apache-2.0
"""The seal of a manifest: whether its text is still the one that a run wrote.

It is a hash that anybody can work out. So it shows figures that were changed by hand or by a bad
merge, and whoever wants to deceive can seal anew: against that only a signature helps, or a check
that measures again.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from edgeprune.report.schema import Manifest

__all__ = ["seal_of", "sealed"]


def seal_of(data: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a manifest's ``data``, its ``seal`` left out.

    Canonical: sorted keys, no white space, ASCII. It doesn't matter how the file is indented.

    Raises:
        ValueError: JSON can't hold it (NaN, infinity).
    """
    rest = {key: value for key, value in data.items() if key != "seal"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def sealed(manifest: Manifest) -> Manifest:
    """``manifest`` with its seal."""
    return manifest.model_copy(update={"seal": seal_of(manifest.model_dump(mode="json"))})
