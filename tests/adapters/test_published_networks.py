"""Networks in the style of published ones, written afresh and small: each is exported exactly."""

from __future__ import annotations

import pytest
import torch
from e2cnn import gspaces, nn
from small_models import assert_exports
from torch.nn import functional as F

from eq_aimet import export_model

C4, C8, D4 = gspaces.Rot2dOnR2(4), gspaces.Rot2dOnR2(8), gspaces.FlipRot2dOnR2(4)


def regular(space, count):
    return nn.FieldType(space, count * [space.regular_repr])


def trivial(space, count):
    return nn.FieldType(space, count * [space.trivial_repr])


class Bottleneck(nn.EquivariantModule):
    """ReDet's block: it has norms by name and an `export()` that collects its parts."""

    def __init__(self, in_type, out_type, stride=1):
        super().__init__()
        self.in_type, self.out_type = in_type, out_type
        self.conv1 = nn.R2Conv(in_type, out_type, 1, bias=False)
        self.add_module("bn1", nn.InnerBatchNorm(out_type))
        self.conv2 = nn.R2Conv(out_type, out_type, 3, stride=stride, padding=1, bias=False)
        self.add_module("bn2", nn.InnerBatchNorm(out_type))
        self.relu = nn.ReLU(out_type, inplace=True)
        self.downsample = None
        if stride != 1 or in_type != out_type:
            self.downsample = nn.R2Conv(in_type, out_type, 1, stride=stride, bias=False)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(getattr(self, "bn1")(self.conv1(x)))  # noqa: B009
        out = getattr(self, "bn2")(self.conv2(out))  # noqa: B009
        out += identity
        return self.relu(out)

    def evaluate_output_shape(self, shape):
        return shape

    def export(self):
        self.eval()
        return torch.nn.ModuleDict({name: module.export() for name, module in self.named_children()})


class ReResNet(torch.nn.Module):
    """A backbone that gives the features of several stages as a tuple (ReDet)."""

    shape = (3, 17, 17)

    def __init__(self):
        super().__init__()
        self.in_type = trivial(C8, 3)
        self.stem = nn.SequentialModule(
            nn.R2Conv(self.in_type, regular(C8, 1), 3, padding=1), nn.ReLU(regular(C8, 1))
        )
        self.res_layers = []
        for number, (before, after) in enumerate(((1, 1), (1, 2))):
            name = f"layer{number + 1}"
            self.add_module(
                name, nn.SequentialModule(Bottleneck(regular(C8, before), regular(C8, after), stride=2))
            )
            self.res_layers.append(name)

    def forward(self, x):
        x = self.stem(nn.GeometricTensor(x, self.in_type))
        outs = []
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outs.append(x)
        return tuple(out.tensor for out in outs) if len(outs) > 1 else outs[0]


class Matcher(torch.nn.Module):
    """Two images through one backbone as one batch, flattened to sequences and compared (se2-loftr)."""

    shape = (2, 9, 9)

    def __init__(self):
        super().__init__()
        self.in_type = trivial(C4, 1)
        self.backbone = nn.SequentialModule(
            nn.R2Conv(self.in_type, regular(C4, 2), 3, padding=1),
            nn.ReLU(regular(C4, 2)),
            nn.GroupPooling(regular(C4, 2)),
        )
        y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
        self.register_buffer("encoding", torch.stack((y.sin(), x.cos()))[None], persistent=False)

    def forward(self, pair):
        first, second = pair[:, :1], pair[:, 1:]
        batch = first.size(0)
        if first.shape[2:] == second.shape[2:]:
            features = self.backbone(
                nn.GeometricTensor(torch.cat([first, second], dim=0), self.in_type)
            ).tensor
            left, right = features.split(batch)
        left = left + self.encoding[:, :, : left.size(2), : left.size(3)]
        left, right = (part.flatten(2).transpose(1, 2) for part in (left, right))
        left, right = (part / part.shape[-1] ** 0.5 for part in (left, right))
        similarity = torch.einsum("nlc,nsc->nls", left, right) / 0.1
        return {"confidence": F.softmax(similarity, 1) * F.softmax(similarity, 2)}


class KeyPoints(torch.nn.Module):
    """Orientations and keypoints of an image pyramid through one set of layers (REKD)."""

    shape = (1, 13, 13)

    def __init__(self):
        super().__init__()
        self.in_type, hidden = trivial(C8, 1), regular(C8, 2)
        self.block = nn.SequentialModule(
            nn.R2Conv(self.in_type, hidden, 3, padding=1, bias=False),
            nn.InnerBatchNorm(hidden),
            nn.ReLU(hidden, inplace=True),
        )
        self.group_size = C8.fibergroup.order()
        self.pool = nn.GroupPooling(hidden)
        self.score = torch.nn.Conv2d(2 * 2, 1, 1)

    def forward(self, image):
        orientations, maps = [], []
        for factor in (1.0, 0.5):
            scaled = image if factor == 1.0 else F.interpolate(image, scale_factor=factor, mode="nearest")
            fields = self.block(nn.GeometricTensor(scaled, self.in_type))
            b, c, h, w = fields.shape
            grouped = fields.tensor.reshape(b, c // self.group_size, self.group_size, h, w)
            orientations.append(F.softmax(grouped.mean(1), dim=1))
            maps.append(F.interpolate(self.pool(fields).tensor, size=image.shape[2:], mode="nearest"))
        return self.score(torch.cat(maps, 1)), orientations[0]


class Actor(torch.nn.Module):
    """An actor whose output is one mixed field: a vector, invariant actions and their deviations."""

    shape = (2, 8, 8)

    def __init__(self):
        super().__init__()
        space = C4
        out = nn.FieldType(space, [space.irrep(1)] + 4 * [space.trivial_repr])
        self.in_type, hidden = trivial(space, 2), regular(space, 2)
        self.conv = nn.SequentialModule(
            nn.R2Conv(self.in_type, hidden, 3),
            nn.ReLU(hidden),
            nn.PointwiseMaxPool(hidden, 2),
            nn.R2Conv(hidden, hidden, 3),
            nn.ReLU(hidden),
            nn.R2Conv(hidden, out, 1),
        )

    def forward(self, obs):
        obs = obs.float()
        out = self.conv(nn.GeometricTensor(obs, self.in_type)).tensor.reshape(obs.shape[0], -1)
        dxy, inv_act, std = out[:, 0:2], out[:, 2:3], out[:, 3:]
        mean = torch.cat((inv_act[:, 0:1], dxy, inv_act[:, 1:]), dim=1)
        return mean, torch.clamp(std, min=-20, max=2)


class E2SFCNN(torch.nn.Module):
    """The steerable network of the e2cnn experiments: D4, ELU, antialiased pooling, restricted late."""

    shape = (1, 17, 17)

    def __init__(self):
        super().__init__()
        self.in_type = trivial(D4, 1)
        layers, current = [], self.in_type
        for width in (1, 2):
            target = regular(D4, width)
            layers.append(
                nn.SequentialModule(
                    nn.R2Conv(current, target, 5, padding=2, bias=False),
                    nn.InnerBatchNorm(target),
                    nn.ELU(target, inplace=True),
                )
            )
            current = target
        self.layers = torch.nn.ModuleList(layers)
        self.pool = nn.PointwiseAvgPoolAntialiased(current, sigma=0.66, stride=2)
        self.restrict = self._restrict(current)
        self.gpool = nn.GroupPooling(self.restrict.out_type)
        self.full = torch.nn.Sequential(
            torch.nn.Dropout(0.3),
            torch.nn.Linear(self.gpool.out_type.size, 4),
            torch.nn.BatchNorm1d(4),
            torch.nn.ELU(),
        )

    def _restrict(self, fields):
        restriction = nn.RestrictionModule(fields, (None, 4))
        return nn.SequentialModule(restriction, nn.DisentangleModule(restriction.out_type))

    def forward(self, x):
        x = nn.GeometricTensor(x, self.in_type)
        for layer in self.layers:
            x = layer(x)
        x = self.gpool(self.restrict(self.pool(x))).tensor
        b, c = x.shape[:2]
        return self.full(x.view(b, c, -1).mean(-1))


class RadioGalaxies(torch.nn.Module):
    """LeNet with D_N fields, a mask, and a classifier with log-probabilities."""

    shape = (1, 17, 17)

    def __init__(self):
        super().__init__()
        self.input_type, hidden = trivial(D4, 1), regular(D4, 2)
        self.mask = nn.MaskModule(self.input_type, 17, margin=1)
        self.conv1, self.relu1 = (
            nn.R2Conv(self.input_type, hidden, 5, padding=2, bias=False),
            nn.ReLU(hidden, inplace=True),
        )
        self.pool1 = nn.PointwiseMaxPoolAntialiased(hidden, kernel_size=2)
        self.gpool = nn.GroupPooling(hidden)
        self.fc1, self.drop, self.fc2 = (
            torch.nn.Linear(2 * 8 * 8, 5),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(5, 2),
        )

    def forward(self, x):
        x = self.gpool(self.pool1(self.relu1(self.conv1(self.mask(nn.GeometricTensor(x, self.input_type))))))
        x = x.tensor
        x = F.relu(self.fc1(x.view(x.size()[0], -1)))
        return F.log_softmax(self.fc2(self.drop(x)), dim=1)


class EquivariantNet(torch.nn.Module):
    """Wang's network for dynamics: vector inputs and outputs of several steps, one after the other."""

    shape = (4, 9, 9)

    def __init__(self):
        super().__init__()
        vectors = nn.FieldType(C4, 2 * [C4.irrep(1)])
        self.in_type, hidden, self.out = vectors, regular(C4, 2), nn.FieldType(C4, [C4.irrep(1)])
        self.model = nn.SequentialModule(
            nn.R2Conv(vectors, hidden, 3, padding=1),
            nn.InnerBatchNorm(hidden),
            nn.ReLU(hidden),
            nn.R2Conv(hidden, self.out, 3, padding=1),
        )
        self.steps = 3

    def forward(self, xx):
        results = []
        for _ in range(self.steps):
            im = self.model(nn.GeometricTensor(xx, self.in_type)).tensor
            xx = torch.cat([xx[:, 2:], im], 1)
            results.append(im)
        return torch.stack(results, 1)


NETWORKS = (ReResNet, Matcher, KeyPoints, Actor, E2SFCNN, RadioGalaxies, EquivariantNet)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_it_is_exported_exactly(kind, training):
    torch.manual_seed(0)
    network = kind()
    with torch.no_grad():
        for name, value in network.named_buffers():
            if "running_var" in name:
                value.uniform_(0.5, 2.0)
    images = torch.rand(2, *kind.shape)
    plain = export_model(network.train(training), images)
    network.eval()
    assert_exports(network, images, torch.cat((images, 1 - images[:1])))
    outputs = plain(images)
    expected = network(images)
    assert type(outputs) is type(expected)
