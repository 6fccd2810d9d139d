"""An ONNX graph that can be edited: constants as arrays, and the producer and consumers of each value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Graph", "attributes"]

# Up to this size, constants of equal content are stored once; larger constants are not worth a comparison.
_SHARED_BYTES = 4096
# onnxruntime fails to open a file whose weights share a zero point when it rewrites them to u8, as with
# the option `session.x64quantprecision`.
_NEVER_SHARED = np.dtype(np.int8)


class Graph:
    """A view of an ONNX model that edits it in place.

    Nodes may be added in any order: `finish` sorts the nodes, drops nodes that no output needs, and checks
    the model.

    Args:
        model: The model to edit.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self._constants: dict[str, np.ndarray] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._shared = {_content(array): name for name, array in self._constants.items() if _is_shared(array)}
        self._count = 0
        self._made: dict[tuple[Any, ...], str] = {}
        self._shapes: dict[str, tuple[int, ...]] | None = None

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The values of the initializers by name."""
        return self._constants

    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that makes each value."""
        return {output: node for node in self.nodes for output in node.output}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Return the nodes that take each value, once for each time they take it."""
        takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                takers.setdefault(name, []).append(node)
        return takers

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape that a value has at the first call, or `None` if the shape is not fixed."""
        if self._shapes is None:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            model.graph.ClearField("node")
            model.graph.node.extend(self.nodes)
            known = {tensor.name for tensor in model.graph.initializer}
            model.graph.initializer.extend(
                numpy_helper.from_array(array, name)
                for name, array in self._constants.items()
                if name not in known
            )
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
            self._shapes = {}
            for value in (*inferred.value_info, *inferred.input, *inferred.output):
                dims = value.type.tensor_type.shape.dim
                if all(dim.HasField("dim_value") for dim in dims):
                    self._shapes[value.name] = tuple(dim.dim_value for dim in dims)
        return self._shapes.get(name)

    def fresh(self) -> str:
        """Return a name that no value has yet."""
        self._count += 1
        return f"eq{self._count}"

    def constant(self, array: np.ndarray) -> str:
        """Return the name of an initializer with this content; add the initializer if the graph has none."""
        key = _content(array)
        if not _is_shared(array) or key not in self._shared:
            name = self.fresh()
            self._constants[name] = array
            self._shared[key] = name
            return name
        return self._shared[key]

    def add_constant(self, name: str, array: np.ndarray) -> None:
        """Add an initializer in place of the node that made the value `name`."""
        self._constants[name] = array
        if _is_shared(array):
            self._shared.setdefault(_content(array), name)

    def node(self, op_type: str, inputs: list[str], output: str | None = None, **options: Any) -> str:
        """Add a node of one output and return the output's name."""
        output = self.fresh() if output is None else output
        self.nodes.append(helper.make_node(op_type, inputs, [output], **options))
        return output

    def once(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        """Return the name that `make` returned at the first call with this key; nodes can share the name."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def remove(self, node: onnx.NodeProto) -> None:
        """Remove a node; the consumers of its output then need another producer."""
        self.nodes = [other for other in self.nodes if other is not node]

    def drop_constant(self, name: str) -> None:
        """Remove an initializer, so that a node can produce its value."""
        array = self._constants.pop(name)
        if self._shared.get(_content(array)) == name:
            del self._shared[_content(array)]

    def replace_constant(self, name: str, array: np.ndarray) -> None:
        """Replace the content of an initializer."""
        self.drop_constant(name)
        self._constants[name] = array

    def share_constants(self) -> None:
        """Store constants of equal content once."""
        aliases = {
            name: self._shared[_content(array)]
            for name, array in self._constants.items()
            if _is_shared(array)
        }
        for node in self.nodes:
            for position, name in enumerate(node.input):
                node.input[position] = aliases.get(name, name)

    def shorten_names(self) -> None:
        """Shorten the names of all values except the model's inputs and outputs; remove the nodes' names."""
        fixed = {value.name for value in (*self.model.graph.input, *self.model.graph.output)}
        short: dict[str, str] = {"": ""}
        for node in self.nodes:
            node.name = ""
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name not in fixed:
                        names[position] = short.setdefault(name, f"v{len(short):x}")
        self._constants = {
            short.get(name, name): array for name, array in self._constants.items() if name in short
        }

    def finish(self) -> onnx.ModelProto:
        """Write the edits into the model and return it.

        Raises:
            onnx.checker.ValidationError: If the edited model is not valid.
        """
        graph = self.model.graph
        nodes = self.sorted_nodes()
        used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in self._constants.items()
            if name in used
        )
        onnx.checker.check_model(self.model)
        return self.model

    def sorted_nodes(self) -> list[onnx.NodeProto]:
        """Return the nodes that an output needs, each after the nodes that produce its inputs."""
        producers = self.producers()
        ordered: list[onnx.NodeProto] = []
        done: set[int] = set()
        stack = [(value.name, False) for value in reversed(self.model.graph.output)]
        while stack:
            name, is_ready = stack.pop()
            node = producers.get(name)
            if node is None or id(node) in done:
                continue
            if is_ready:
                done.add(id(node))
                ordered.append(node)
            else:
                stack.append((name, True))
                stack.extend((taken, False) for taken in reversed(node.input))
        return ordered


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as plain values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_shared(array: np.ndarray) -> bool:
    return array.nbytes <= _SHARED_BYTES and array.dtype != _NEVER_SHARED


def _content(array: np.ndarray) -> tuple[Any, ...]:
    return (array.dtype.str, array.shape, array.tobytes())
