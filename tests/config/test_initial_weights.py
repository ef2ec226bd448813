"""init=FILE|RUN: weights to start from, with a new head for other classes, never read again."""

import hashlib
from pathlib import Path

import pytest
import torch
from lightning import Callback

from energy_at.config.build import build
from energy_at.models import preactresnet18
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import Sentinel
from energy_at.training.callbacks import callbacks_of
from tests.helpers.running import ONE_EPOCH, assert_refused, config, prepared, train_in

OTHER = (*ONE_EPOCH, "dataset.classes=3", "dataset.mean=[0.1,0.2,0.3]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("trained") / "run", *ONE_EPOCH)


def weights(checkpoint):
    state = read_checkpoint(checkpoint)["state_dict"]
    return {key.removeprefix("net."): value for key, value in state.items()}


def equal(a, b):
    return a.shape == b.shape and torch.equal(a, b)


def test_a_training_starts_from_the_weights_of_a_run_with_a_new_head(trained, tmp_path, capsys):
    theirs = weights(trained / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    for options, reset in {ONE_EPOCH: set(), OTHER: {"weight", "bias"}}.items():
        run = prepared(tmp_path / "new", *options, f"init={trained}")
        found = run.module.net.state_dict()
        changed = {k for k, v in found.items() if not equal(v, theirs[k])}
        assert changed == {f"net.classifier.2.{key}" for key in reset}
    said = capsys.readouterr().err.splitlines()
    digest = hashlib.sha256((trained / "checkpoints" / "last.ckpt").read_bytes()).hexdigest()
    assert [line.partition("SHA-256 ")[2] for line in said if line.startswith("init ")] == [
        digest[:12],
        f"{digest[:12]}; other classes: classifier.2.weight, classifier.2.bias start anew",
    ]


def test_a_resumed_training_does_not_read_them_again(trained, here, type_train):
    Path("weights.ckpt").write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    options = (*ONE_EPOCH, "init=weights.ckpt", "callbacks.last.every_n_steps=1")
    train_in("run", *options)
    config = RunFolder.open("run").config()
    digest = hashlib.sha256(Path("weights.ckpt").read_bytes()).hexdigest()
    assert (config.init, config.init_sha256) == ("weights.ckpt", digest)
    Path("weights.ckpt").unlink()
    longer = type_train("resume=run", "trainer.max_epochs=2")
    assert longer[0] == 0, longer[2]


REFUSED = {
    ("init=nowhere.pt",): "init=nowhere.pt must be a file of weights or the folder of a run",
    ("init=",): "init= must be the path of a file of weights or of the folder of a run",
    ("init=empty.pt",): "checkpoint empty.pt is damaged or truncated",
    ("init=RUN", "model.width=3"): "the checkpoint is of another network: ",
    ("init=RUN", f"init_sha256={'0' * 64}"): f"init_sha256={'0' * 64} must be the digest of ",
    ("init=RUN", "init_sha256=12"): "init_sha256=12 must be a SHA-256 of 64 digits",
    ("init=RUN", "init_source=trade"): "init_source=trade must be fast_adversarial, n_fgsm, ",
    ("init=wrn.pt", "model=preactresnet18"): "init=wrn.pt: the checkpoint is of another network: ",
    ("init=RUN", "dataset.mean=[0.1,0.2,0.3]"): "dataset.mean=[0.1,0.2,0.3] must be left out: ",
    ("init_source=trades",): "init_source=trades must be left out without init=FILE",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_no_start_is_refused_in_one_line(here, trained, type_train, options):
    Path("empty.pt").touch()
    torch.save({"block1.layer.0.bn1.weight": torch.ones(2)}, "wrn.pt")
    named = [option.replace("RUN", str(trained)) for option in options]
    assert_refused(type_train, REFUSED[options], *ONE_EPOCH, *named)


class Beginning(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            (sentinel,) = callbacks_of(trainer, Sentinel)
            self.healthy = sentinel.rollback.healthy


def test_a_rollback_to_the_beginning_restores_them(trained, tmp_path):
    theirs = weights(trained / "checkpoints" / "last.ckpt")
    options = (*ONE_EPOCH, "callbacks=sentinel", f"init={trained}", "trainer.max_steps=1")
    run = prepared(tmp_path / "run", *options)
    run.trainer.callbacks.append(beginning := Beginning())
    run.trainer.fit(run.module, run.data)
    found = beginning.healthy["network"]
    assert beginning.healthy["step"] == 0
    assert all(torch.equal(v, theirs[k.removeprefix("net.")]) for k, v in found.items())


PREACT = (*ONE_EPOCH, "model=preactresnet18", "model.width=2")


def foreign(net, path="w.pt", **more):
    """The file of a network of other people: its layers alone."""
    torch.save({"state_dict": net.net.state_dict() | more}, path)


def started(tmp_path, capsys, *options):
    """A training that starts from a file, as typed, and what its first lines say of it."""
    capsys.readouterr()
    cfg = config(*PREACT, *options)
    run = build(cfg, RunFolder(tmp_path / "run"), overrides=options)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("init ")]
    return cfg, run.module.net.eval(), said


@pytest.mark.parametrize(
    ("source", "shortcut", "constants"),
    [("fast_adversarial", "plain", None), ("gradalign", "plain", ([0.0] * 3, [1.0] * 3)),
     ("robust_overfitting", "activated", None)],
)  # fmt: skip
def test_a_start_from_a_named_code_base_has_its_logits(
    here, tmp_path, capsys, source, shortcut, constants
):
    mean, std = constants or (config(*PREACT).dataset.mean, config(*PREACT).dataset.std)
    options = {"channels": 3, "classes": config(*PREACT).dataset.classes, "width": 2}
    net = preactresnet18(**options, mean=mean, std=std, shortcut=shortcut, final_norm=False).eval()
    foreign(net)
    cfg, found, said = started(tmp_path, capsys, "init=w.pt", f"init_source={source}")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(found(x), net(x))
    assert (cfg.model.shortcut, cfg.model.final_norm) == (shortcut, False)
    assert list(cfg.model.mean) == list(mean)  # recorded: a resumed run has them too
    assert said[1].startswith(f"init     network of {source}: ")
    assert len(said) == 2
    typed = ("init=w.pt", f"init_source={source}", "model.shortcut=activated")
    assert started(tmp_path, capsys, *typed)[0].model.shortcut == "activated"


def test_what_a_file_leaves_open_is_said(here, tmp_path, capsys):
    net = preactresnet18(channels=3, classes=4, width=2, mean=[0.0] * 3, std=[1.0] * 3)
    foreign(net)
    ending = "; init_source=NAME of its code base decides otherwise"
    typed = ("init=w.pt", "dataset.classes=4")
    taken = "taken model.shortcut=activated and the normalization of the data set"
    line = f"init     w.pt does not say all of its network: {taken}{ending}"
    assert started(tmp_path, capsys, *typed)[2][1] == line
    _, _, said = started(tmp_path, capsys, *typed, "model.shortcut=plain", "dataset.mean=[0,0,0]")
    assert len(said) == 1  # path and digest
    foreign(net, mu=torch.zeros(3), sigma=torch.ones(3))
    _, _, said = started(tmp_path, capsys, *typed)
    assert said[1].endswith(f"taken model.shortcut=activated{ending}")


def test_a_start_from_a_run_has_its_network(tmp_path, capsys):
    run = train_in(tmp_path / "before", *PREACT, "model.shortcut=plain", "trainer.max_steps=1")
    cfg, _, said = started(tmp_path, capsys, f"init={run}")
    assert cfg.model.shortcut == "plain"
    assert said[1] == f"init     network of {run}/checkpoints/last.ckpt: shortcut=plain"
    assert len(said) == 2
