# SPDX-License-Identifier: Apache-2.0
"""How to reach a device: this machine, ssh, an emulated board, a simulator, a browser, a phone.

``address`` reads what the user wrote, ``shell`` is what all places that run commands have in
common. What is measured there becomes figures in ``edgeprune.measure``.
"""
