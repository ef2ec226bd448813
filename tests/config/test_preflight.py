"""Before a training writes anything: what its objects say about each other."""

from pathlib import Path

import numpy as np
import pytest

from energy_at.config.preflight import announce
from energy_at.runs.folder import RunFolder
from tests.helpers.running import ONE_EPOCH, assert_refused, config, prepared

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=1"), "one image"),
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=447"), "one image"),
        ("callbacks.best.monitor=val/acc/foo", "choose from val/acc/clean, val/acc/fgsm"),
        ("model.classes=3", "the model has 3 logits but labels go up to 3"),
        ("model.channels=1", "model.channels=1 are not those of the images, 3: leave it out"),
        ("callbacks.sentinel.classes=3", "classes=3 must be 4, as of the data set: leave it out"),
        (("dataset=digits", "dataset.size=9"), "dataset.size=9 is not that of the images, 8x8: "),
        (("dataset=digits", "dataset.classes=3"), "dataset.classes=3 must be at least 10: labels"),
        ("trainer.val_check_interval=15", "val_check_interval=15 must be at most 14, the batches"),
        (("trainer.val_check_interval=4", "trainer.limit_train_batches=3"), "must be at most 3"),
        (("trainer.val_check_interval=4", "trainer.limit_train_batches=0.25"), "be at most 3"),
        (("+callbacks.es._target_=lightning.pytorch.callbacks.EarlyStopping",
          "+callbacks.es.monitor=val/nosuch"), "EarlyStopping follows val/nosuch, which no"),
        ("callbacks.best.monitor=test/acc", "monitor=test/acc must be a score on held-out images"),
        ("callbacks.best.monitor=val_ema/acc/pgd2", "choose from val/acc/clean, val/acc/fgsm"),
        ("callbacks.best.mode=min", "callbacks.best.mode: unknown key"),
        ("callbacks.best.filename=../evil", "callbacks.best.filename: unknown key"),
        ("callbacks.best.save_top_k=-1", "callbacks.best.save_top_k: unknown key"),
        ("+callbacks.best.mode=min", "callbacks.best.mode: BestCheckpoint takes no mode: leave"),
        ("callbacks.continuation=null", "callbacks.continuation=null must be a group of keys"),
        ("trainer.limit_train_batches=0.001", "limit_train_batches=0.001 must be at least 0.07"),
        ("trainer.min_epochs=2", "trainer.min_epochs=2 must be at most trainer.max_epochs=1"),
        ("trainer.min_steps=900", "trainer.min_steps=900 must be at most 14 of all epochs"),
        ("dataset.pad=9", "dataset.pad=9 must be an integer from 0 to 8"),
        ("dataset.mean=[nan,0,0]", "dataset.mean=[nan,0,0] must be a list of finite numbers"),
        ("dataset.std=[0,1,1]", "dataset.std=[0,1,1] must be a list of finite numbers > 0, one a"),
        ("optimizer.lr=1e30", "optimizer.lr=1e+30 must be a finite number > 0 and <= 1000"),
        ("optimizer.weight_decay=1e30", "weight_decay=1e+30 must be a finite number >= 0 and <= "),
        ("evaluation.subset=1000", "evaluation.subset=1000 must be an integer from 1 to "),
        ("optimizer.lr=-1", "optimizer.lr=-1 must be a finite number > 0"),
        (("callbacks=ema", "callbacks.ema.decay=nan"), "decay=nan must be a finite number >= 0 an"),
        (("attack=none", "attack.search._target_=energy_at.objectives.TradesKL"), "a TradesKL, wh"),
        ("attack.search.ball={}", "attack.search.ball={} must be a group of keys"),
        ("schedule.peak=2", "schedule.peak=2 must be a finite number > 0 and < 1"),
        (("attack=none", "reg=der"), "attack=none (NoAttack) leaves the loss, or the regul"),
        (("attack=none", "loss=trades"), "attack=none (NoAttack) leaves the loss, or the regul"),
        ("+optimizer.foo=1", "got an unexpected keyword argument 'foo'"),
    ],
)  # fmt: skip
def test_objects_that_do_not_fit_each_other_are_refused(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


def test_the_first_lines_say_how_many_extra_images_and_which_options_change_nothing(capsys):
    pixels = np.zeros((5, 8, 8, 3), dtype=np.uint8)
    np.savez("more.npz", image=pixels, label=np.arange(5) % 4)
    extra = ("dataset.extra=more.npz", "dataset.extra_share=0.3", "optimizer.decay_norm=false")
    plain = ("model=preactresnet18", "model.width=2")
    for options, said in {
        extra: (
            "448 training, 64 held-out images; 10 of 32 in a batch from 5 extra images\n",
            "no batch norm: training.bn_mode concerns dropout only, optimizer.decay_norm nothing\n",
        ),
        plain: ("448 training, 64 held-out images\n", "of width 2, 11,262 weights\n"),
    }.items():
        cfg = config(*ONE_EPOCH, *options)
        cfg.trainer.enable_progress_bar = True
        announce(cfg, prepared(Path("run"), *ONE_EPOCH, *options), RunFolder(Path("run")))
        err = capsys.readouterr().err
        assert all(line in err for line in said), err
