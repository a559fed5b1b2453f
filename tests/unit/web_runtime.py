# SPDX-License-Identifier: Apache-2.0
"""The runtimes of the web devices, fetched by npm once for all tests that need them."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pytest

from edgeprune.device import web
from edgeprune.device.web.chromium import find_chromium
from edgeprune.errors import DeviceError
from edgeprune.progress import Silent


@functools.cache
def _fetched() -> Path | str:
    """The folder, or why there is none."""
    place = Path(tempfile.mkdtemp(prefix="edgeprune-web-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    try:
        web.set_up(place / "web", Silent())
    except DeviceError as error:
        return str(error)
    return place / "web"


@pytest.fixture(scope="session", name="web_folder")
def web_folder() -> Path:
    """Where the runtimes are; skips the test where they can't be had.

    Before any fixture of one test alone, so that no stand-in on PATH is in the way.
    """
    found = _fetched()
    if isinstance(found, str):
        pytest.skip(f"{found} (Debian: apt-get install nodejs npm)")
    return found


def chromium() -> None:
    """Skip the test where there is no Chromium."""
    try:
        find_chromium()
    except DeviceError as error:
        pytest.skip(f"{error} (Debian: apt-get install chromium)")
