# SPDX-License-Identifier: Apache-2.0
"""WebAssembly as a device: in Node, and in headless Chromium where that is installed.

``.onnx`` files run in onnxruntime-web; ``.tflite`` files in LiteRT.js, which needs a browser.
``set_up`` fetches the runtimes once; ``run_job`` does one measuring job, each in a fresh process of
Node or of the browser. The measuring itself is ``measure.mjs``, the same in both.
"""

from edgeprune.device.web.install import installed, runtime_name, set_up
from edgeprune.device.web.run import run_job

__all__ = ["installed", "run_job", "runtime_name", "set_up"]
