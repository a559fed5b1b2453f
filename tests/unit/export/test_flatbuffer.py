# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.export import flatbuffer


def test_packing_again_gives_the_same_bytes(lite):
    content = lite("int8").path.read_bytes()
    assert flatbuffer.pack(flatbuffer.load(content, "m")) == content


@pytest.mark.parametrize("numerics", ["fp32", "int8", "int8-dynamic"])
def test_constants_are_aligned(lite, numerics):
    content = lite(numerics).path.read_bytes()
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    buffers = flatbuffer.schema().ModelT.InitFromPackedBuf(content, 0).buffers
    data = [buffer.data for buffer in buffers if buffer.data is not None]
    assert len(data) > 5
    assert {(d.__array_interface__["data"][0] - start) % 16 for d in data} == {0}


def test_buffers_behind_the_flatbuffer_come_inside(lite):
    content = lite("fp32").path.read_bytes()
    model = flatbuffer.load(content, "m")
    moved = next(b for b in model.buffers if b.data is not None and len(b.data) > 1000)
    outside = moved.data.tobytes()
    moved.data, moved.offset, moved.size = None, 1, len(outside)
    # The bindings' own packing writes offset and size, which ours leaves out.
    builder = flatbuffer.schema().flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    size = len(builder.Output())
    moved.offset = size
    builder = flatbuffer.schema().flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert len(builder.Output()) == size
    split = bytes(builder.Output()) + outside
    assert flatbuffer.pack(flatbuffer.load(split, "m")) == content


def test_values_are_dequantized_by_channel(lite):
    graph = flatbuffer.read(lite("int8").path)
    conv = next(op for op in graph.ops if op.kind == "CONV_2D")
    weight = conv.inputs[1]
    assert weight is not None and weight.per_channel and weight.dtype == "int8"
    by_hand = weight.raw.view(np.int8).reshape(weight.shape)[3] * float(weight.scale[3])
    assert np.allclose(weight.values()[3], by_hand)
    with pytest.raises(ValueError, match="no constant"):
        graph.inputs[0].values()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(InputError, match="can't be read"):
        flatbuffer.read(path)
    path.write_bytes(b"not a model")
    with pytest.raises(InputError, match="no TFLite file"):
        flatbuffer.read(path)
