# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Lite Micro on this machine: what a microcontroller's interpreter makes of a file.

``environment`` makes a virtual environment with the tflite-micro package, ``program`` is what runs
inside it, ``examine`` asks it about one file. The memory that it reports is the microcontroller's;
its time is this machine's and is never told.
"""

from edgeprune.device.tflm.environment import PACKAGE, Environment, find, set_up
from edgeprune.device.tflm.examine import Arena, Examined, examine

__all__ = [
    "PACKAGE",
    "Arena",
    "Environment",
    "Examined",
    "examine",
    "find",
    "set_up",
]
