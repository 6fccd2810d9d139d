"""A module of the catalogue between two plain layers: does a scale pass through it?"""

from __future__ import annotations

import copy
import functools
import re
from functools import cache

import torch
from module_cases import input_types

from eq_aimet import equalize_equivariant, export_model, tag_blocks
from eq_aimet.symmetry.layers import is_layer

LAYER = "is a layer"
YES = "yes"
_SPREAD = 3.0  # the ranges of the source's blocks differ by this power of ten


class Between(torch.nn.Module):
    """Source layers, one per input, a module, and sink layers, one per output."""

    def __init__(self, module, in_blocks, out_blocks, layer):
        super().__init__()
        self.sources = torch.nn.ModuleList(_source(layer, blocks) for blocks in in_blocks)
        self.module = module
        self.sinks = torch.nn.ModuleList(_sink(layer, blocks) for blocks in out_blocks)

    def forward(self, x):
        outputs = self.module(*[source(x) for source in self.sources])
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        return tuple(sink(output) for sink, output in zip(self.sinks, outputs, strict=True))


def _source(build, blocks):
    layer = build(2, sum(blocks))
    tag_blocks(layer, (1, 1), blocks)
    spread = torch.logspace(-_SPREAD / 2, _SPREAD / 2, len(blocks)).repeat_interleave(torch.tensor(blocks))
    with torch.no_grad():
        layer.weight *= spread.reshape(-1, *(layer.weight.dim() - 1) * [1])
        layer.bias *= spread
    return layer


def _sink(build, blocks):
    layer = build(sum(blocks), 2)
    tag_blocks(layer, blocks, (1, 1))
    return layer


@cache
def try_equalization(case):
    """Return what the page says of a case, and the relative change of the function by equalization.

    "yes" where scales moved from the sources to the sinks, "is a layer" where the module itself is the
    layer that takes part in it, else "no: " and the report's reason.
    """
    torch.manual_seed(0)
    source = case.network()
    inputs = case.inputs()
    plain = export_model(source, inputs)
    types = input_types(source.module)
    with torch.no_grad():
        typed = source.module(
            *[case.kit.enn.GeometricTensor(image, t) for t, image in zip(types, inputs, strict=True)]
        )
    outputs = [typed[label] for label in sorted(typed)] if isinstance(typed, dict) else [typed]
    grid = types[0].gspace.dimensionality * [case.size]
    layer = functools.partial(torch.nn.Conv2d, kernel_size=1) if grid else torch.nn.Linear
    model = Between(plain, [_blocks(t) for t in types], [_blocks(output.type) for output in outputs], layer)
    x = torch.randn(2, 2, *grid, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = copy.deepcopy(model.eval()).double()(x.double())
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    with torch.no_grad():
        after = copy.deepcopy(model).double()(x.double())
    change = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(before, after, strict=True))
    return _verdict(report, any(map(is_layer, plain.modules()))), change


def _blocks(field_type):
    return tuple(int(representation.size) for representation in field_type.representations)


def _verdict(report, has_layer):
    own = [layer for layer in report.layers if layer.name.startswith("module.")]
    if has_layer and all(layer.cls_sets or layer.regions for layer in own):
        return LAYER
    moves = [(c.layers[:-1], c.layers[-1:], c.scales) for c in report.cls_sets]
    moves += [(region.sources, region.sinks, (region.scales,)) for region in report.regions]
    reached = {
        sink
        for sources, sinks, spans in moves
        if any(name.startswith("sources") for name in sources)
        and any((span.smallest, span.largest) != (1.0, 1.0) for span in spans)
        for sink in sinks
    }
    if all(layer.name in reached for layer in report.layers if layer.name.startswith("sinks")):
        return YES
    reason = next(layer.reason for layer in report.left_out if layer.name.startswith("sources"))
    output_side = reason.partition("; its input: ")[0].removeprefix("its output: ")
    return "no: " + re.sub(r" `module[^`]*`", "", output_side)
