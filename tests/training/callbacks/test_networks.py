"""The moving average: it follows its recurrence and changes neither training nor validation."""

from math import isfinite

import pytest
import torch
from lightning import Callback

from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY_BN, fitted, prepared, states_equal

OPTIONS = (*TINY_BN, "callbacks.progress=null", "trainer.max_epochs=2", "dataset.batch_size=128")


class Record(Callback):
    """Weights of the network and of its average after each step, and of each validation."""

    def __init__(self):
        self.live, self.average, self.validated = [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.live.append(weights(module.net))
        if "val_ema" in module.validated_nets:
            self.average.append(weights(module.validated_nets["val_ema"]()))

    def on_validation_batch_start(self, trainer, module, *_):
        if trainer.fit_loop.total_batch_idx >= 0 and not trainer.sanity_checking:
            self.validated.append(weights(module.net))


def weights(net):
    return torch.cat([p.detach().flatten().clone() for p in net.parameters()])


def trained(folder, *options):
    run, record = prepared(folder, *OPTIONS, *options), Record()
    run.trainer.callbacks.append(record)
    run.trainer.fit(run.module, run.data)
    return record, run.trainer.callback_metrics


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    options = ("callbacks=ema", "callbacks.progress=null", "callbacks.ema.decay=0.5")
    return trained(tmp_path_factory.mktemp("ema"), *options)


def test_the_average_follows_its_recurrence(averaged):
    record, _ = averaged
    expected = record.live[0]
    for live, average in zip(record.live[1:], record.average[1:], strict=True):
        expected = 0.5 * expected + 0.5 * live
        torch.testing.assert_close(average, expected)
    assert len(record.live) > 4
    assert not torch.allclose(record.live[-1], record.average[-1])


def test_a_run_resumed_at_its_end_ends_with_the_average(tmp_path):
    """As if killed in the final evaluation."""
    options = (*OPTIONS, "callbacks=ema", "callbacks.ema.decay=0.5")
    whole = fitted(tmp_path, *options)
    last = RunFolder(tmp_path).checkpoint()
    again = fitted(tmp_path, *options, checkpoint=last)
    assert states_equal(again.module, whole.module)
    live, average = read_checkpoint(last)["current_model_state"], whole.module.state_dict()
    assert any(not torch.equal(live[name], value) for name, value in average.items())


def test_a_training_with_it_is_the_training_without_it(averaged, tmp_path):
    plain, _ = trained(tmp_path)
    assert all(map(torch.equal, plain.live, averaged[0].live))


def test_validation_sees_the_live_network_and_the_average_separately(averaged):
    record, metrics = averaged
    assert {"val/acc/pgd2", "val_ema/acc/pgd2"} <= metrics.keys()
    assert record.validated
    for seen in record.validated:
        assert any(torch.equal(seen, live) for live in record.live)


def test_ema_is_validated_alongside_the_live_network(tmp_path):
    run = fitted(tmp_path, *TINY_BN, "callbacks=ema", "callbacks.progress=null")
    names = run.trainer.callback_metrics
    assert {"val/acc/pgd2", "val_ema/acc/pgd2"} <= names.keys()
    assert isfinite(names["val_ema/acc/pgd2"])


def test_ema_shares_no_storage_with_the_live_network(tmp_path):
    run = prepared(tmp_path, *TINY_BN, "callbacks=ema", "callbacks.progress=null")
    pointers = []
    run.module.on_train_end = lambda: pointers.extend(
        {t.data_ptr() for t in net().state_dict().values()}
        for net in run.module.validated_nets.values()
    )
    run.trainer.fit(run.module, run.data)
    live, average = pointers
    assert not live & average
