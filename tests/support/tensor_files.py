"""Files of tensors, written here: safetensors, TensorFlow Lite, TensorFlow.js and dlib."""

import json

import numpy as np

TFLITE_CODES = {"add": 0, "conv": 3, "depthwise": 4, "mul": 18, "relu": 19, "reshape": 22, "sub": 41, "abs": 101}


def safetensors_file(tensors):
    """The bytes of {name: float32, float16 or int64}."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, values in tensors.items():
        kind = {"f4": "F32", "f2": "F16", "i8": "I64"}[values.dtype.str[1:]]
        end = position + values.nbytes
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [position, end]}
        position = end
    content = json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + b"".join(values.tobytes() for values in tensors.values())


def tflite_file(operators, change=lambda model: None, codes=TFLITE_CODES):
    """The bytes of a model of [(operator, constants)] as TensorFlow's own schema writes it, after a change to it."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.subgraphs = 3, "drawn", [graph]
    model.operatorCodes, model.buffers, graph.tensors, graph.operators = [], [schema.BufferT()], [], []
    names = list(codes)
    for code in codes.values():
        model.operatorCodes.append(schema.OperatorCodeT())
        model.operatorCodes[-1].deprecatedBuiltinCode = code
    activation = schema.TensorT()
    activation.shape, activation.name = [2, 112, 112, 3], "activation"
    graph.tensors.append(activation)
    for name, constants in operators:
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = names.index(name), [0], [0]
        for values in constants:
            buffer, tensor = schema.BufferT(), schema.TensorT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.shape, tensor.type, tensor.buffer = list(values.shape), schema.TensorType.FLOAT32, len(model.buffers)
            node.inputs.append(len(graph.tensors))
            graph.tensors.append(tensor)
            model.buffers.append(buffer)
        graph.operators.append(node)
    change(model)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tfjs_files(tensors, name="net", group=None):
    """A manifest and a file for {name: (stored numbers, type, quantisation or None)}, as tfjs writes them."""
    entries = [
        {"name": key, "shape": list(values.shape), "dtype": kind} | ({"quantization": more} if more else {})
        for key, (values, kind, more) in tensors.items()
    ]
    content = b"".join(values.tobytes() for values, _, _ in tensors.values())
    groups = [{"paths": [f"{name}.bin"], "weights": entries} | (group or {})]
    return {f"{name}.json": json.dumps(groups).encode(), f"{name}.bin": content}


def dlib_tensor(*shape, values):
    """A tensor of four axes as dlib writes it."""
    assert len(shape) == 4
    return b"\x01\x02" + b"".join(map(_integer, shape)) + np.concatenate([v.ravel() for v in values]).tobytes()


def _integer(value):
    content = value.to_bytes(4, "little").rstrip(b"\0")
    return bytes([len(content)]) + content
