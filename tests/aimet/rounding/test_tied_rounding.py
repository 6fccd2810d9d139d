"""AdaRound and SeqMSE under the hooks learn on orbits, so that the integers of an orbit stay equal."""

import copy
import json

import pytest
import torch
from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
from aimet_torch.gptvq.defs import GPTVQParameters
from aimet_torch.gptvq.gptvq_weight import GPTVQ
from aimet_torch.seq_mse import SequentialMse, apply_seq_mse
from block_networks import Conventional, convolution
from networks import IMAGES, KINDS, assert_tied, network, simulate, tied_weights
from torch.utils.data import DataLoader

from eq_aimet import equivariance_error, equivariant_hooks, is_symmetric, symmetrize, tie_encodings
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.orbits import orbit_spreads

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(set_and_freeze_param_encodings|load_encodings) is deprecated:DeprecationWarning"
)

LOADER = DataLoader(IMAGES, batch_size=4)


def forward(model, images):
    return model(images)


def adaround(model, folder, iterations=40, bits=4):
    torch.manual_seed(0)
    parameters = AdaroundParameters(
        LOADER, num_batches=3, default_num_iterations=iterations, forward_fn=forward, default_reg_param=0.01
    )
    return Adaround.apply_adaround(
        model, IMAGES[:1], parameters, path=str(folder), filename_prefix="rounded", default_param_bw=bits
    )


def simulate_rounded(model, folder, bits=4):
    sim = simulate(model, bits=bits, calibrated=False)
    sim.set_and_freeze_param_encodings(str(folder / "rounded.encodings"))
    sim.compute_encodings(lambda simulated: simulated(IMAGES))
    return sim


@pytest.mark.parametrize(("order", "depthwise"), KINDS)
def test_adaround_rounds_an_orbit_alike(order, depthwise, tmp_path):
    model = network(order, depthwise)
    nearest = simulate(model)
    with equivariant_hooks():
        rounded = adaround(model, tmp_path)
    assert is_symmetric(rounded)  # bit for bit, although AdaRound leaves values between integers
    sim = simulate_rounded(rounded, tmp_path)
    assert_tied(sim)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0
    # It did round: some weights went elsewhere than to the nearest integer.
    changed = [
        bool((first != second).any())
        for (_, first, _), (_, second, _) in zip(tied_weights(nearest), tied_weights(sim), strict=True)
    ]
    assert any(changed)


def test_adaround_alone_breaks_the_ties(tmp_path):
    sim = simulate_rounded(adaround(network(8, "field"), tmp_path), tmp_path)
    assert any(orbit_spreads(integers, orbits).any() for _, integers, orbits in tied_weights(sim))


def test_the_rounding_is_learned_on_the_orbits_and_not_projected_afterwards(tmp_path):
    torch.manual_seed(3)
    model = torch.nn.Sequential(convolution(3, 4, 3, image=True)).eval()

    def loss(rounded):
        with torch.no_grad():
            return float((rounded(IMAGES) - model(IMAGES)).square().mean())

    with equivariant_hooks():
        tied = adaround(model, tmp_path, iterations=2500)
    projected = adaround(model, tmp_path, iterations=2500)
    quantizer = simulate_rounded(projected, tmp_path).model[0].param_quantizers["weight"]
    symmetrize(projected)
    nearest = copy.deepcopy(model)
    with torch.no_grad():
        for other in (projected, nearest):
            other[0].weight.copy_(quantizer(other[0].weight))
    assert loss(tied) < 0.9 * loss(nearest)
    assert loss(tied) < loss(projected)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize(("order", "depthwise"), KINDS)
def test_seq_mse_searches_one_scale_for_an_orbit(order, depthwise, granularity):
    model = network(order, depthwise)
    sim = simulate(model, granularity, calibrated=False)
    with equivariant_hooks():
        apply_seq_mse(sim, LOADER, num_candidates=10)
    sim.compute_encodings(lambda simulated: simulated(IMAGES))
    assert_tied(sim)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0
    # The scales were searched: they are not those of the largest weights.
    simple = simulate(model, granularity)
    assert any(
        not torch.equal(
            sim.model.get_submodule(name).param_quantizers["weight"].get_scale(),
            simple.model.get_submodule(name).param_quantizers["weight"].get_scale(),
        )
        for name, _, _ in tied_weights(sim)
    )


def test_seq_mse_alone_breaks_the_ties():
    images = torch.rand(4, 3, 17, 17, generator=torch.Generator().manual_seed(1))
    images[..., 9:] *= 0.1  # so that a turned filter meets other pixels
    loader = DataLoader(images, batch_size=4)
    alone, hooked = (simulate(network(8, "channel"), calibrated=False) for _ in range(2))
    apply_seq_mse(alone, loader, num_candidates=40)
    with equivariant_hooks():
        apply_seq_mse(hooked, loader, num_candidates=40)
    for sim in (alone, hooked):
        sim.compute_encodings(lambda simulated: simulated(images))
    assert any(orbit_spreads(integers, orbits).any() for _, integers, orbits in tied_weights(alone))
    assert_tied(hooked)


def test_a_conventional_network_gets_aimets_rounding_bit_for_bit(tmp_path):
    alone = adaround(Conventional(seed=2), tmp_path)
    with equivariant_hooks():
        hooked = adaround(Conventional(seed=2), tmp_path)
    for first, second in zip(alone.parameters(), hooked.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_conventional_network_gets_aimets_scales_bit_for_bit():
    alone, hooked = (simulate(Conventional(seed=2), calibrated=False) for _ in range(2))
    apply_seq_mse(alone, LOADER, num_candidates=10)
    with equivariant_hooks():
        apply_seq_mse(hooked, LOADER, num_candidates=10)
    for first, second in zip(alone.model.parameters(), hooked.model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_ties_that_were_lost_before_are_named(tmp_path):
    model = network(4, "channel")
    with torch.no_grad():
        model.residual.body[0].weight[0, 0] += 0.1
    with equivariant_hooks():
        with pytest.raises(InvalidArgumentError, match=r"`model`: .*`residual.body.0`.*symmetrize\(model\)"):
            adaround(model, tmp_path)
        with pytest.raises(InvalidArgumentError, match=r"`sim`: .*`residual.body.0`.*symmetrize\(sim"):
            apply_seq_mse(simulate(model, calibrated=False), LOADER, num_candidates=2)


def test_features_that_cannot_be_tied_are_refused_by_name(tmp_path):
    parameters = GPTVQParameters(data_loader=LOADER, forward_fn=forward)
    with (
        equivariant_hooks(),
        pytest.raises(InvalidArgumentError, match=r"whose weights are tied, for GPTVQ.*outside of `equivar"),
    ):
        GPTVQ.apply_gptvq(network(4, "channel"), IMAGES[:1], parameters, str(tmp_path))


def test_aimet_is_as_it_was_after_the_hooks():
    owners = (Adaround, SequentialMse, GPTVQ)
    before = [dict(vars(owner)) for owner in owners]
    with equivariant_hooks():
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before


def test_frozen_scales_of_seq_mse_need_no_tying():
    sim = simulate(network(8, "field"), calibrated=False)
    with equivariant_hooks():
        apply_seq_mse(sim, LOADER, num_candidates=5)
    sim.compute_encodings(lambda simulated: simulated(IMAGES))
    assert "encodings became" in str(tie_encodings(sim))


def test_the_encodings_file_of_adaround_holds_one_scale_per_orbit(tmp_path):
    with equivariant_hooks():
        adaround(network(4, "channel"), tmp_path, iterations=2)
    encodings = json.loads((tmp_path / "rounded.encodings").read_text())["param_encodings"]
    scales = [entry["scale"] for entry in encodings["stem.0.weight"]]
    assert [scales[4 * field : 4 * field + 4] for field in range(3)] == [
        [scales[4 * field]] * 4 for field in range(3)
    ]
