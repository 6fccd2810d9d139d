"""ONNX files as a stranger may write them: an exported file, changed at random, its mark forged or not."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eq_aimet.deploy.onnx.marked_files import mark, marks

HUGE = (2**42, 2**31, 2**63 - 1, -1, -(2**63), 0)


def forged(model):
    """The model's bytes with a checksum that fits its content."""
    facts = {key: value for key, value in marks(model).items() if key != "checksum"}
    del model.metadata_props[:]
    mark(model, **facts)
    return model.SerializeToString()


def flip_bits(content, random):
    damaged = bytearray(content)
    for _ in range(int(random.integers(1, 8))):
        damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def cut_off(content, random):
    return content[: random.integers(len(content))]


def swap_parts(content, random):
    middle = int(random.integers(len(content)))
    return content[middle:] + content[:middle]


def lead_outside(model, random):
    tensor = pick(model.graph.initializer, random)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", str(random.choice(["../../etc/passwd", "/etc/passwd", "other"]))


def claim_a_shape(model, random):
    tensor = pick(model.graph.initializer, random)
    del tensor.dims[:]
    tensor.dims.extend(int(size) for size in random.choice(HUGE, int(random.integers(1, 4))))


def claim_an_input_shape(model, random):
    dims = model.graph.input[0].type.tensor_type.shape.dim
    pick(dims, random).dim_value = int(random.choice(HUGE))


def make_a_huge_constant(model, random):
    shape = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "hostile_shape")
    model.graph.initializer.append(shape)
    kind = str(random.choice(["ConstantOfShape", "Expand", "Tile"]))
    inputs = ["hostile_shape"] if kind == "ConstantOfShape" else ["hostile_one", "hostile_shape"]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "hostile_one"))
    model.graph.node.insert(0, helper.make_node(kind, inputs, ["hostile"]))
    model.graph.output.append(
        helper.make_tensor_value_info("hostile", TensorProto.FLOAT, ["rows", "columns"])
    )


def change_a_constant(model, random):
    tensor = pick(model.graph.initializer, random)
    array = numpy_helper.to_array(tensor).copy()
    if array.size:
        value = random.choice([0.0, np.nan, np.inf, -1.0, 1e30])
        with np.errstate(invalid="ignore"):
            array.reshape(-1)[random.integers(array.size)] = np.array(value).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def change_an_attribute(model, random):
    entries = [entry for node in model.graph.node for entry in node.attribute]
    entry = pick(entries, random)
    if entry.ints:
        entry.ints[int(random.integers(len(entry.ints)))] = int(random.choice(HUGE))
    else:
        entry.i = int(random.choice(HUGE))


def change_an_operator(model, random):
    node = pick(model.graph.node, random)
    node.op_type = str(random.choice(["Softmax", "Loop", "Conv", "Nonsense", "NonZero", "Resize"]))


def change_a_domain(model, random):
    pick(model.graph.node, random).domain = "com.stranger"


def rewire(model, random):
    node = pick([node for node in model.graph.node if node.input], random)
    other = pick(model.graph.node, random)
    node.input[int(random.integers(len(node.input)))] = other.output[0]


def remove_a_node(model, random):
    del model.graph.node[int(random.integers(len(model.graph.node)))]


def hide_a_subgraph(model, random):
    body = helper.make_graph([], "body", [], [])
    node = pick(model.graph.node, random)
    node.attribute.append(helper.make_attribute("then_branch", body))


def change_the_opset(model, random):
    model.opset_import[0].version = int(random.choice([0, 1, 13, 18, 99, 2**40]))


def lose_an_output(model, random):
    del model.graph.output[:]


BYTES = (flip_bits, cut_off, swap_parts)
GRAPHS = (
    lead_outside, claim_a_shape, claim_an_input_shape, make_a_huge_constant, change_a_constant,
    change_an_attribute, change_an_operator, change_a_domain, rewire, remove_a_node, hide_a_subgraph,
    change_the_opset, lose_an_output,
)  # fmt: skip


def pick(sequence, random):
    return sequence[int(random.integers(len(sequence)))]


def hostile_file(content, seed):
    """The bytes of the file with this seed, and what was done to it."""
    random = np.random.default_rng(seed)
    change = pick([*BYTES, *GRAPHS], random)
    if change in BYTES:
        return change(content, random), change.__name__
    model = onnx.load_from_string(content)
    change(model, random)
    return forged(model), change.__name__
