# SPDX-License-Identifier: Apache-2.0
"""Where the user's settings and what set-ups make are kept: the system's own folders for that."""

from platformdirs import user_cache_path, user_config_path

from edgeprune.device.settings import Places

__all__ = ["places"]


def places() -> Places:
    """``~/.config/edgeprune`` and ``~/.cache/edgeprune``, or what the system has in their stead."""
    return Places(
        user_config_path("edgeprune", appauthor=False),
        user_cache_path("edgeprune", appauthor=False),
    )
