# SPDX-License-Identifier: Apache-2.0
"""edgeprune: trained PyTorch models onto small devices, with measured proof.

Importing this package imports no heavy library; ``edgeprune.pipeline`` is the page to read first.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
