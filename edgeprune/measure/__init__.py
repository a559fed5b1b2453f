# SPDX-License-Identifier: Apache-2.0
"""From artifacts and a device to figures with origins.

``profile`` drives the measuring; each kind of device has its own file that turns what was found
there into figures. Torch-free.
"""
