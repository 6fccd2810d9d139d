"""Networks of the kinds that users write, small, in either library: residual, dense, continuous, U-shaped."""

from __future__ import annotations

from functools import cache

import torch


def _fields(kit, space, count, representation=None):
    return kit.enn.FieldType(space, count * [representation or space.regular_repr])


@cache
def residual_block(kit):
    """Return the class of residual blocks, which derives from the library's base class as users' own do."""

    class WideResidualBlock(_ResidualParts, kit.enn.EquivariantModule):
        pass

    return WideResidualBlock


class _ResidualParts:
    """Norm, ReLU and convolution twice, and a convolution on the shortcut where the types differ."""

    def __init__(self, kit, in_type, out_type, stride=1):
        super().__init__()
        enn = kit.enn
        self.in_type, self.out_type = in_type, out_type
        self.norm1, self.relu1 = enn.InnerBatchNorm(in_type), enn.ReLU(in_type, inplace=True)
        self.conv1 = enn.R2Conv(in_type, out_type, 3, stride=stride, padding=1, bias=False)
        self.norm2, self.relu2 = enn.InnerBatchNorm(out_type), enn.ReLU(out_type, inplace=True)
        self.dropout = enn.PointwiseDropout(out_type, 0.3)
        self.conv2 = enn.R2Conv(out_type, out_type, 3, padding=1, bias=False)
        self.shortcut = None
        if in_type != out_type or stride != 1:
            self.shortcut = enn.R2Conv(in_type, out_type, 1, stride=stride, bias=False)

    def forward(self, x):
        normed = self.relu1(self.norm1(x))
        out = self.conv2(self.dropout(self.relu2(self.norm2(self.conv1(normed)))))
        out += x if self.shortcut is None else self.shortcut(normed)
        return out

    def evaluate_output_shape(self, input_shape):
        return input_shape


class WideResNet(torch.nn.Module):
    """Equivariant to C8, restricted to C4 midway."""

    size, channels, angle = 17, 3, 90.0

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        enn, block = kit.enn, residual_block(kit)
        fine = kit.rotations(8)
        self.in_type = _fields(kit, fine, 3, fine.trivial_repr)
        hidden = _fields(kit, fine, 2)
        self.stem = enn.R2Conv(self.in_type, hidden, 5, padding=2, bias=False)
        self.stage1 = enn.SequentialModule(block(kit, hidden, hidden), block(kit, hidden, hidden))
        self.restrict = enn.RestrictionModule(hidden, 4)
        coarse = self.restrict.out_type
        self.disentangle = enn.DisentangleModule(coarse)
        wide = _fields(kit, coarse.gspace, 4)
        self.stage2 = enn.SequentialModule(
            block(kit, self.disentangle.out_type, wide, stride=2),
            block(kit, wide, wide),
        )
        self.norm, self.relu = enn.InnerBatchNorm(wide), enn.ReLU(wide, inplace=True)
        self.pool = enn.GroupPooling(wide)
        self.linear = torch.nn.Linear(4, 5)

    def forward(self, x):
        fields = self.stage1(self.stem(self.kit.enn.GeometricTensor(x, self.in_type)))
        fields = self.stage2(self.disentangle(self.restrict(fields)))
        pooled = self.pool(self.relu(self.norm(fields))).tensor
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(pooled, 1).reshape(x.size(0), -1))


class DenseNet(torch.nn.Module):
    """Equivariant to D4: each layer takes the results of all layers before it."""

    size, channels, angle = 9, 1, 90.0

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        enn = kit.enn
        space = kit.flips_and_rotations(4)
        self.in_type = _fields(kit, space, 1, space.trivial_repr)
        growth = _fields(kit, space, 1)
        self.stem = enn.R2Conv(self.in_type, growth, 3, padding=1)
        self.layers = torch.nn.ModuleList(
            enn.SequentialModule(
                enn.InnerBatchNorm(_fields(kit, space, count)),
                enn.ELU(_fields(kit, space, count)),
                enn.R2Conv(_fields(kit, space, count), growth, 3, padding=1),
            )
            for count in (1, 2, 3)
        )
        joined = _fields(kit, space, 4)
        self.pool = enn.SequentialModule(
            enn.PointwiseAvgPoolAntialiased(joined, 0.66, 2), enn.PointwiseMaxPoolAntialiased(joined, 3, 2, 1)
        )
        self.invariant = enn.GroupPooling(joined)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        results = [self.stem(self.kit.enn.GeometricTensor(x, self.in_type))]
        for layer in self.layers:
            joined = results[0] if len(results) == 1 else self.kit.enn.tensor_directsum(results)
            results.append(layer(joined))
        pooled = self.invariant(self.pool(self.kit.enn.tensor_directsum(results))).tensor
        return self.linear(pooled.mean(dim=(2, 3)))


class ContinuousNet(torch.nn.Module):
    """Equivariant to SO(2): scalars and vectors, with gates, norms and a mask."""

    size, channels, angle = 11, 1, 90.0

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        enn = kit.enn
        space = kit.rotations(-1, 2)
        self.in_type = _fields(kit, space, 1, space.trivial_repr)
        self.mask = enn.MaskModule(self.in_type, self.size)
        scalars = _fields(kit, space, 2, space.trivial_repr)
        gated = enn.FieldType(space, 2 * [space.trivial_repr] + 2 * [space.irrep(1)] + [space.irrep(2)])
        gates = _fields(kit, space, 3, space.trivial_repr)
        vectors = enn.FieldType(space, 2 * [space.irrep(1)] + [space.irrep(2)])
        both = gates + vectors
        in_parts = enn.FieldType(space, list(scalars.representations) + list(both.representations))
        labels = 2 * ["scalar"] + 6 * ["gated"]
        self.lift = enn.R2Conv(self.in_type, in_parts, 5, padding=2)
        self.branches = enn.MultipleModule(
            in_parts,
            labels,
            [
                (enn.SequentialModule(enn.InnerBatchNorm(scalars), enn.ELU(scalars)), "scalar"),
                (enn.GatedNonLinearity1(both), "gated"),
            ],
        )
        middle = self.branches.out_type
        self.conv = enn.R2Conv(middle, gated, 3, padding=1)
        self.batch_norm = enn.GNormBatchNorm(gated)
        self.norm = enn.NormNonLinearity(gated)
        self.pool = enn.NormMaxPool(gated, 3, 2, 1)
        self.invariant = enn.NormPool(gated)
        self.linear = torch.nn.Linear(len(gated), 2)

    def forward(self, x):
        fields = self.branches(self.lift(self.mask(self.kit.enn.GeometricTensor(x, self.in_type))))
        fields = self.pool(self.norm(self.batch_norm(self.conv(fields))))
        return self.linear(self.invariant(fields).tensor.flatten(2).mean(2))


class UNet(torch.nn.Module):
    """Equivariant to C4: upsampling, and the finer fields joined in again; a map of logits out."""

    size, channels, angle = 13, 1, 90.0

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        enn = kit.enn
        space = kit.rotations(4)
        self.in_type = _fields(kit, space, 1, space.trivial_repr)
        narrow, wide = _fields(kit, space, 2), _fields(kit, space, 3)
        self.down1 = self.convolve(kit, self.in_type, narrow)
        self.down2 = self.convolve(kit, narrow, wide, stride=2)
        self.bottom = self.convolve(kit, wide, wide, stride=2)
        self.up2 = enn.R2Upsampling(wide, size=7, align_corners=True)
        self.merge2 = self.convolve(kit, wide + wide, narrow)
        self.up1 = enn.R2Upsampling(narrow, size=13, align_corners=True)
        self.merge1 = self.convolve(kit, narrow + narrow, narrow)
        self.head = enn.R2Conv(narrow, _fields(kit, space, 2, space.trivial_repr), 1)

    @staticmethod
    def convolve(kit, in_type, out_type, stride=1):
        enn = kit.enn
        return enn.SequentialModule(
            enn.R2Conv(in_type, out_type, 3, stride=stride, padding=1, bias=False),
            enn.InnerBatchNorm(out_type),
            enn.ReLU(out_type, inplace=True),
        )

    def forward(self, x):
        fine = self.down1(self.kit.enn.GeometricTensor(x, self.in_type))
        middle = self.down2(fine)
        up = self.merge2(self.kit.enn.tensor_directsum([middle, self.up2(self.bottom(middle))]))
        return self.head(self.merge1(self.kit.enn.tensor_directsum([fine, self.up1(up)]))).tensor


NETWORKS = (WideResNet, DenseNet, ContinuousNet, UNet)
