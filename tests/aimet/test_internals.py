import pytest

from eq_aimet.aimet.internals import PRIVATE_NAMES, PrivateName, missing_names


@pytest.mark.parametrize("name", PRIVATE_NAMES, ids=lambda name: name.path)
def test_aimet_still_has_the_private_name(name):
    assert list(missing_names((name,))) == []


def test_a_missing_name_is_named_with_what_needs_it():
    gone = PrivateName("aimet_torch.batch_norm_fold", "BatchNormFold.gone", "an example")
    part = PrivateName("aimet_torch.batch_norm_fold", "Gone.name", "another example")
    assert list(missing_names((gone, part))) == [
        "aimet_torch.batch_norm_fold.BatchNormFold.gone is gone: an example",
        "aimet_torch.batch_norm_fold.Gone.name is gone: another example",
    ]
