"""Training loops as people write them run inside `tie_parameters` without a change."""

import lightning
import pytest
import torch
from networks import IMAGES, assert_tied, network, run, simulate
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from eq_aimet import equivariance_error, is_symmetric, tie_parameters

TARGETS = torch.randn(len(IMAGES), 2, generator=torch.Generator().manual_seed(3))


class Regression(lightning.LightningModule):
    """Trains a model, and notes after each batch whether its orbits are equal."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tied_after_batches = []

    def training_step(self, batch, _):
        images, targets = batch
        return F.mse_loss(self.model(images).float(), targets)

    def on_train_batch_end(self, *_):
        self.tied_after_batches.append(is_symmetric(self.model))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


@pytest.fixture(params=["float", "simulation"])
def trained(request):
    """The model or simulation that a test trains; after the test its weights differ, and are tied."""
    plain = network(4, "channel")
    subject = plain if request.param == "float" else simulate(plain)
    model = getattr(subject, "model", subject)
    former = model.stem[0].weight.detach().clone()
    yield subject
    assert not torch.equal(model.stem[0].weight, former)
    assert is_symmetric(model)
    if subject is not plain:
        subject.compute_encodings(run)
        assert_tied(subject)
        assert equivariance_error(model, IMAGES[:3]).worst == 0.0


# Lightning 2.6 calls a function that torch 2.14 deprecates. It also advises more workers for the loader, and
# tells that quantizers are in eval mode.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
        {"precision": "bf16-mixed"},
    ],
    ids=["plain", "accumulated and clipped", "bf16"],
)
def test_lightnings_trainer(trained, options, tmp_path):
    task = Regression(getattr(trained, "model", trained))
    loader = DataLoader(TensorDataset(IMAGES, TARGETS), batch_size=3)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    with tie_parameters(trained):
        trainer.fit(task, loader)
    assert task.tied_after_batches == [True] * 4
    assert trainer.global_step == 4 // options.get("accumulate_grad_batches", 1)


def test_autocast_with_a_gradient_scaler(trained):
    model = getattr(trained, "model", trained)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    with tie_parameters(trained):
        for attempt in range(4):
            former = model.stem[0].weight.detach().clone()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.mse_loss(model(IMAGES).float(), TARGETS)
            optimizer.zero_grad()
            scaler.scale(loss * (float("inf") if attempt == 1 else 1.0)).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            # The scaler skips the step whose gradient is infinite.
            assert torch.equal(model.stem[0].weight, former) == (attempt == 1)
            assert is_symmetric(model)


@pytest.fixture
def one_process(tmp_path):
    """A group of one process, over gloo."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("first", ["ties", "wrapper"])
def test_distributed_data_parallel_in_one_process(trained, first):
    model = getattr(trained, "model", trained)
    wrapped = DistributedDataParallel(model) if first == "wrapper" else None
    with tie_parameters(trained):
        wrapped = wrapped or DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(wrapped.parameters(), 1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            F.mse_loss(wrapped(IMAGES), TARGETS).backward()
            optimizer.step()
            assert is_symmetric(model)
