"""What `verify_onnx` refuses, or reports as no proof: it is never satisfied with nothing."""

import copy

import pytest
import torch
from deployed_networks import SIZE, Residual, simulate, varied_images

from eq_aimet import assert_bit_exact, export_onnx, make_portable, verify_onnx
from eq_aimet.errors import EquivarianceError, InvalidArgumentError


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x * float("nan"), "with NaN or infinite values"),
        (lambda x: x / 0, "with NaN or infinite values"),
        (lambda x: x[:0], "at least one"),
        (lambda x: (255 * x).byte(), r"torch\.uint8"),
        (lambda x: x.half(), r"torch\.float16"),
        (lambda x: x[:, :1], r"shape \(4, 1, 17, 17\)"),
        (lambda x: x[..., :9], r"shape \(4, 3, 17, 9\)"),
        (lambda x: None, "a NoneType without a tensor"),
        (lambda x: x.numpy(), "a ndarray without a tensor"),
        (lambda x: (x, x), "a container of other inputs"),
    ],
)
def test_images_that_are_refused(exported, images, change, text):
    sim, path, _ = exported

    with pytest.raises(InvalidArgumentError, match=text):
        verify_onnx(path, sim, change(images))


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"threads": ()}, "threads"),
        ({"threads": (0,)}, "threads"),
        ({"threads": (10**6,)}, "threads"),
        ({"threads": 2}, "threads"),
        ({"threads": (1.5,)}, "threads"),
        ({"runs": 0}, "runs"),
        ({"runs": 2.5}, "runs"),
        ({"runs": True}, "runs"),
        ({"reference_images": -1}, "reference_images"),
        ({"elements": []}, "elements"),
        ({"elements": [45]}, "elements"),
        ({"transform_output": lambda output, element: output[..., :1]}, "transform_output"),
        ({"transform_output": "turn"}, "transform_output"),
    ],
)
def test_options_that_are_refused(exported, images, options, argument):
    sim, path, _ = exported

    with pytest.raises(InvalidArgumentError) as caught:
        verify_onnx(path, sim, images, **options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("path", [None, 7, "a\0b.onnx", b"model.onnx"])
def test_paths_that_are_none(exported, images, path):
    sim, *_ = exported

    with pytest.raises(InvalidArgumentError, match="`path`"):
        verify_onnx(path, sim, images)
    with pytest.raises(InvalidArgumentError, match="`path`"):
        export_onnx(sim, images[:1], path)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: torch.ones_like(x), "look the same under 90°"),
        (lambda x: x[:1].repeat(4, 1, 1, 1), "is the same for all images"),
        (lambda x: 1000 + 100 * x, "lie outside of"),
        (lambda x: x / 1e6, "is the same for all images"),
    ],
)
def test_images_that_prove_nothing(exported, images, make, text):
    sim, path, _ = exported

    report = verify_onnx(path, sim, make(images), runs=1, threads=(1,))

    assert not report.is_bit_exact
    assert any(text in reason for reason in report.unverified)
    with pytest.raises(EquivarianceError, match="was not verified"):
        assert_bit_exact(report)


def test_one_image_is_enough(exported, images):
    sim, path, _ = exported

    report = verify_onnx(path, sim, images[:1], runs=1, threads=(1,))

    assert report.is_bit_exact
    report.assert_bit_exact()


def test_a_file_of_another_or_of_a_changed_simulation(exported, images):
    sim, path, _ = exported
    other = simulate(Residual(fields=12, seed=1))
    changed = copy.deepcopy(sim)
    changed.model.classifier.bias.data += 1e-3

    for wrong in (other, changed):
        with pytest.raises(InvalidArgumentError, match="`sim`: received a simulation with other weights"):
            verify_onnx(path, wrong, images)


def test_a_simulation_in_float64_is_exported_in_float32(tmp_path, images):
    sim = simulate(Residual().double(), images=varied_images(8, seed=1).double())
    make_portable(sim, images[:1])
    export_onnx(sim, images[:1].double(), tmp_path / "model.onnx")

    assert sim.model.classifier.weight.dtype == torch.float64
    assert_bit_exact(verify_onnx(tmp_path / "model.onnx", sim, images.double(), runs=1))


def test_half_precision_is_refused_before_anything_is_written(tmp_path):
    sim = simulate(Residual())
    sim.model.bfloat16()

    with pytest.raises(InvalidArgumentError, match=r"parameters of torch\.bfloat16; expected torch\.float32"):
        export_onnx(sim, torch.rand(1, 3, SIZE, SIZE), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_inference_tensors_are_taken(exported, tmp_path):
    sim, *_ = exported
    with torch.inference_mode():
        image = torch.rand(1, 3, SIZE, SIZE)

    export_onnx(sim, image, tmp_path / "model.onnx")

    assert verify_onnx(tmp_path / "model.onnx", sim, image, runs=1, threads=(1,)).is_bit_exact
