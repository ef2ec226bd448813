"""Before a training writes anything: what its objects say about each other."""

import pytest

from tests.helpers.running import ONE_EPOCH, assert_refused

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=1"), "one image"),
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=447"), "one image"),
        ("callbacks.best.monitor=val/acc/foo", "choose from val/acc/clean, val/acc/fgsm"),
        ("model.classes=3", "the model has 3 logits but labels go up to 3"),
        ("model.channels=1", "the model does not take images of shape (3, 8, 8)"),
        ("callbacks.best.monitor=test/acc", "must not be chosen by test/acc"),
        ("evaluation.subset=1000", "evaluation.subset=1000 must be an integer from 1 to "),
        ("optimizer.lr=-1", "optimizer.lr=-1 must be a finite number > 0"),
        ("schedule.peak=2", "schedule.peak=2 must be a finite number > 0 and < 1"),
        (("attack=none", "reg=der"), "attack=none leaves the loss, or the regularizer, nothing to"),
        (("attack=none", "loss=trades"), "attack=none leaves the loss, or the regularizer, not"),
        ("+optimizer.foo=1", "got an unexpected keyword argument 'foo'"),
    ],
)  # fmt: skip
def test_objects_that_do_not_fit_each_other_are_refused(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))
