"""A model is judged in one floating-point type, whatever types its own code asks for."""

import pytest
import torch

from eq_aimet.symmetry import equivariance_error
from eq_aimet.symmetry.precision import ComputeIn


class Casting(torch.nn.Module):
    """A network that is equivariant, and whose forward changes the type of its input."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change
        self.classifier = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.classifier(self.change(x).mean((2, 3)))


CHANGES = {
    "float()": lambda x: x.float(),
    "half()": lambda x: x.half(),
    "to": lambda x: x.to(torch.float32),
    "to by keyword": lambda x: x.to(dtype=torch.bfloat16),
    "to another": lambda x: x.to(torch.zeros(1)),
    "type": lambda x: x.type(torch.float32),
    "type of tensors": lambda x: x.type(torch.FloatTensor),
    "type by name": lambda x: x.type("torch.FloatTensor"),
    "zeros": lambda x: x + torch.zeros(1, 3, 1, 1, dtype=torch.float32),
    "matrix": lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(3)),
    "linspace": lambda x: torch.einsum("bchw,c->bchw", x, torch.linspace(0, 1, 3)),
    "arange": lambda x: torch.einsum("bchw,c->bchw", x, torch.arange(3).float()),
    "tensor": lambda x: torch.einsum("bchw,c->bchw", x, torch.tensor([1.0, 2.0, 3.0])),
    "none": lambda x: x,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_casts_in_forward_do_not_matter(change, dtype):
    seen = []
    model = Casting(CHANGES[change])
    model.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    report = equivariance_error(model, torch.rand(2, 3, 7, 7), dtype=dtype)
    assert report.worst < (1e-14 if dtype == torch.float64 else 1e-5)
    assert set(seen) == {dtype}


def test_a_cast_loses_no_digits():
    third = torch.tensor([1 / 3], dtype=torch.float64)
    with ComputeIn(torch.float64):
        assert torch.equal(third.float(), third)
    assert not torch.equal(third.float().double(), third)


def test_other_types_and_operations_in_place_stay_as_they_are():
    with ComputeIn(torch.float64):
        total = torch.zeros(3, dtype=torch.int32)
        assert total.add_(1) is total
        assert (total.dtype, (total > 0).dtype, total.to(torch.int64).dtype, total.long().dtype) == (
            torch.int32,
            torch.bool,
            torch.int64,
            torch.int64,
        )
        assert torch.ones(2, dtype=torch.complex64).dtype == torch.complex64
