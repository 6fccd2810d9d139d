"""Sizes in `forward` are plain numbers while a model is traced, except for those of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from e2cnn import nn
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import IMAGE, SPACE, Small, assert_exports, image

from eq_aimet import ExportError, export_model

# What `forward` does with a size n of 9, or with the batch size.
IDIOMS = {
    "isinstance": lambda m, x, t: t * (2.0 if isinstance(t.shape[-1], int) else 3.0),
    "isinstance tensor": lambda m, x, t: t * 2.0 if isinstance(t, torch.Tensor) else t,
    "is_tensor": lambda m, x, t: t * 2.0 if torch.is_tensor(t) else t,
    "range": lambda m, x, t: sum(t * i for i in range(t.shape[-1])),
    "halved": lambda m, x, t: t[..., : t.shape[-1] // 2],
    "equal": lambda m, x, t: t * 2.0 if t.size(-1) == 9 else t,
    "one of": lambda m, x, t: t * (1.0 if t.shape[-1] in (9, 11) else 2.0),
    "minimum": lambda m, x, t: t * min(t.shape[-1], 4),
    "maximum": lambda m, x, t: t * max(t.shape[-1], 4),
    "list times": lambda m, x, t: t * sum([1.0] * t.shape[-1]),
    "text times": lambda m, x, t: t * len("x" * t.shape[-1]),
    "f-string": lambda m, x, t: t * float(f"{t.shape[-1]:d}"),
    "square root": lambda m, x, t: t / math.sqrt(t.shape[1]),
    "logarithm": lambda m, x, t: t * math.log2(t.size(2)),
    "round": lambda m, x, t: t * round(t.shape[-1] / 2),
    "bits": lambda m, x, t: t * t.shape[-1].bit_length(),
    "dictionary": lambda m, x, t: t * {9: 2.0, 7: 3.0}[t.shape[-1]],
    "set": lambda m, x, t: t * len({t.shape[-1], t.shape[-2]}),
    "numpy": lambda m, x, t: t * float(np.arange(t.shape[-1]).sum()),
    "arange": lambda m, x, t: t * torch.arange(t.shape[-1]),
    "linspace": lambda m, x, t: t * torch.linspace(0, 1, t.shape[-1]),
    "eye": lambda m, x, t: t @ torch.eye(t.shape[-1]),
    "zeros": lambda m, x, t: t + torch.zeros(t.shape[1], t.shape[2], t.shape[3]),
    "full": lambda m, x, t: t + torch.full(t.shape[1:], 0.5),
    "meshgrid": lambda m, x, t: t + sum(torch.meshgrid(*2 * [torch.arange(t.shape[-1])], indexing="ij")),
    "rank": lambda m, x, t: t * 2.0 if t.dim() == 4 and t.ndim == 4 and len(t.shape) == 4 else t,
    "dtype": lambda m, x, t: t * 2.0 if t.dtype == torch.float32 and t.is_floating_point() else t,
    "device": lambda m, x, t: t + torch.ones(9, device=t.device),
    "numel": lambda m, x, t: t / t[0].numel(),
    "numel of a slice": lambda m, x, t: t / t.shape[1:].numel(),
    "stride": lambda m, x, t: t * t.stride(-1),
    "unpacked": lambda m, x, t: (lambda b, c, h, w: t.reshape(b, c * h, w))(*t.shape),
    "starred": lambda m, x, t: t.reshape(t.shape[0], *[1, 2], *t.shape[2:]),
    "concatenated shape": lambda m, x, t: t.reshape(t.shape[:1] + t.shape[1:]),
    "same shapes": lambda m, x, t: t + x if t.shape[2:] == x.shape[2:] else t,
    "same batch": lambda m, x, t: t + x if t.shape[0] == x.shape[0] else t,
    "module": lambda m, x, t: torch.nn.Upsample(size=(2 * t.shape[2], 2 * t.shape[3]))(t),
    "module with weights": lambda m, x, t: torch.nn.LayerNorm(list(t.shape[1:]))(t),
    "type": lambda m, x, t: nn.ReLU(nn.FieldType(SPACE, t.shape[1] * [SPACE.trivial_repr]))(
        nn.GeometricTensor(t, nn.FieldType(SPACE, t.shape[1] * [SPACE.trivial_repr]))
    ).tensor,
    "parameter as a number": lambda m, x, t: t * 2.0 if m.gain > 0 else t,
    "parameter as a float": lambda m, x, t: t * math.exp(float(m.gain)),
    "buffer as a number": lambda m, x, t: t * m.offset[0].item(),
    "buffer to list": lambda m, x, t: t * sum(m.offset.flatten().tolist(), 2.0),
    "batch in view": lambda m, x, t: t.view(x.shape[0], -1),
    "batch times channels": lambda m, x, t: t.reshape(t.shape[0] * t.shape[1], 1, *t.shape[2:]).mean((2, 3)),
    "batch back": lambda m, x, t: t.reshape(t.size(0) * 2, -1).reshape(t.size(0), 2, -1),
    "batch of new zeros": lambda m, x, t: torch.cat((t, t.new_zeros(t.shape[0], 1, 9, 9)), 1),
    "batch of zeros": lambda m, x, t: torch.cat((t, torch.zeros(t.shape[0], 1, 9, 9)), 1),
    "batch of ones": lambda m, x, t: torch.cat((t, torch.ones((t.shape[0], 1, 9, 9))), 1),
    "batch of full": lambda m, x, t: t + torch.full((t.shape[0], 1, 1, 1), 0.5),
    "batch of arange": lambda m, x, t: t * torch.arange(t.shape[0])[:, None, None, None],
    "batch of expand": lambda m, x, t: t + m.offset.expand(t.shape[0], -1, -1, -1),
    "batch of repeat": lambda m, x, t: t + m.offset[None].repeat(x.size(0), 1, 1, 1),
    "batch moved": lambda m, x, t: t.permute(1, 2, 3, 0).reshape(2, 81, x.shape[0]).sum(1).t(),
    "batch split": lambda m, x, t: torch.cat((t, t)).split(x.shape[0])[1],
    "batch sliced": lambda m, x, t: torch.cat((t, 2 * t))[x.shape[0] :],
    "chunks": lambda m, x, t: t.chunk(2, 1)[0] + t.chunk(2, 1)[1],
    "unbound": lambda m, x, t: sum(t.unbind(1)),
    "iterated rows": lambda m, x, t: sum(row for row in t.transpose(0, 1)),
    "largest": lambda m, x, t: t.max(1).values.flatten(1) + t.flatten(1).max(1)[0][:, None],
}  # fmt: skip


@pytest.mark.parametrize("idiom", IDIOMS)
def test_python_takes_the_same_branch_as_without_tracing(idiom):
    assert_exports(Small(IDIOMS[idiom]), image(), image(3), image(1))


@pytest.mark.parametrize("idiom", ["range", "batch times channels", "batch of zeros", "batch moved"])
def test_a_batch_of_one(idiom):
    assert_exports(Small(IDIOMS[idiom]), image(1), image(4))


REFUSED = {
    "range": lambda m, x, t: sum(t * i for i in range(t.shape[0])),
    "index": lambda m, x, t: [t, 2 * t, 3 * t][t.shape[0]],
    "decision": lambda m, x, t: t * 2.0 if t.shape[0] > 1 else t,
    "decision on equality": lambda m, x, t: t * 2.0 if t.shape[0] == 2 else t,
    "truth": lambda m, x, t: t * 2.0 if x.shape[0] else t,
    "minimum": lambda m, x, t: t * min(t.shape[0], 64),
    "one of": lambda m, x, t: t * 2.0 if t.shape[0] in (2, 3) else t,
    "list times": lambda m, x, t: t * sum([1.0] * t.shape[0]),
    "text times": lambda m, x, t: t * len("x" * t.shape[0]),
    "f-string": lambda m, x, t: t * float(f"{t.shape[0]}"),
    "string": lambda m, x, t: t * float(str(t.shape[0])),
    "square root": lambda m, x, t: t / math.sqrt(t.shape[0]),
    "int": lambda m, x, t: t * int(t.shape[0] / 2),
    "dictionary": lambda m, x, t: t * {2: 2.0, 3: 3.0}[t.shape[0]],
    "len": lambda m, x, t: t.reshape(len(t), -1),
    "iterated": lambda m, x, t: torch.stack([2 * part for part in t]),
    "unbound": lambda m, x, t: torch.stack([2 * part for part in t.unbind(0)]),
    "derived": lambda m, x, t: t * int(t.reshape(t.shape[0] * 2, -1).shape[0]),
    "moved": lambda m, x, t: sum(t * i for i in range(t.transpose(0, 1).shape[1])),
    "numel": lambda m, x, t: t * float(f"{t.numel()}"),
    "bits": lambda m, x, t: t * t.shape[0].bit_length(),
}  # fmt: skip


@pytest.mark.parametrize("idiom", REFUSED)
def test_what_depends_on_the_batch_size_is_refused_by_name(idiom):
    with pytest.raises(
        ExportError, match=r"test_numbers_in_forward.py, line \d+.*(batch|fixed number)"
    ) as caught:
        export_model(Small(REFUSED[idiom]), image())
    assert "would take this batch size only" in str(caught.value)


VALUES = {
    "if": lambda m, x, t: t if t.sum() > 0 else -t,
    "item": lambda m, x, t: t * t.mean().item(),
    "float": lambda m, x, t: t * float(t.mean()),
    "list": lambda m, x, t: t * sum(t.flatten().tolist()),
    "numpy": lambda m, x, t: t * float(np.asarray(t).mean()),
    "equal": lambda m, x, t: t if torch.equal(t, x) else -t,
    "index": lambda m, x, t: t[:, int(t.mean((0, 2, 3)).argmax())],
    "while": lambda m, x, t: t * 2 if (t > 0).any() else t,
}  # fmt: skip


@pytest.mark.parametrize("idiom", VALUES)
def test_decisions_on_values_are_refused_by_name(idiom):
    with pytest.raises(ExportError, match=r"test_numbers_in_forward.py, line \d+.*one path for all data"):
        export_model(Small(VALUES[idiom]), image())


@pytest.mark.parametrize(
    "draw",
    [
        lambda m, x, t: t + torch.randn(9),
        lambda m, x, t: t + torch.rand_like(t),
        lambda m, x, t: torch.nn.Linear(9, 9)(t),
    ],
)
def test_random_numbers_are_refused_by_name(draw):
    with pytest.raises(ExportError, match=r"draws random numbers \(`\w+`\) in eval mode"):
        export_model(Small(draw), image())


def test_a_model_keeps_what_forward_stores():
    def remember(model, x, t):
        model.last, model.offset = t, model.offset * 2.0
        return t + model.offset

    model = Small(remember)
    before = model.offset.clone()
    export_model(model, image())
    assert not hasattr(model, "last")
    assert torch.equal(model.offset, before)


STEPS = st.lists(
    st.sampled_from(
        [
            lambda t: t.flatten(1).view(t.shape[0], *t.shape[1:]),
            lambda t: t.permute(0, 1, 3, 2),
            lambda t: t.reshape(t.shape[0] * t.shape[1], *t.shape[2:]).reshape(t.shape),
            lambda t: torch.cat((t, t.new_ones(t.shape[0], 1, *t.shape[2:])), dim=1),
            lambda t: t[..., : t.shape[-1] // 2 + 1] if t.shape[-1] > 3 else t,
            lambda t: t * (t.shape[-1] if t.shape[-1] % 2 else 1 / t.shape[1]),
            lambda t: sum(t.split(1, dim=1)).expand(-1, t.shape[1], -1, -1),
            lambda t: t + torch.arange(t.shape[-1]) * min(t.shape[2:]),
            lambda t: t.reshape(t.size(0), t.size(1), -1).mean(-1)[:, :, None, None] + t,
        ]
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(steps=STEPS, batch=st.integers(1, 4), size=st.integers(3, 8))
def test_random_uses_of_sizes(steps, batch, size):
    def tail(model, x, t):
        for step in steps:
            t = step(t)
        return t

    assert_exports(Small(tail), image(batch, size), image(batch + 2, size))


def test_fields_of_the_inputs_own_channels():
    def lift(model, x, t):
        kind = nn.FieldType(SPACE, x.shape[1] * [SPACE.trivial_repr])
        return model.pool(model.convolution(nn.GeometricTensor(x, kind))).tensor + t

    assert IMAGE.size == 1
    assert_exports(Small(lift), image(), image(3))
