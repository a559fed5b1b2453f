# SPDX-License-Identifier: Apache-2.0
"""A board that QEMU stands for: a Debian arm64 userland with the runtimes' own aarch64 wheels.

What runs there computes what the board computes, and its instructions can be counted. Its times
and its memory are the emulator's and say nothing of the board.
"""

from edgeprune.device.emulated.setup import Board, python_words, read_board, set_up

__all__ = ["Board", "python_words", "read_board", "set_up"]
