"""What the Python API is given: one clear error before the first step, or it is cast."""

from functools import partial

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from energy_at.attacks import LIET, Attack, AttackResult, Linf, NoAttack, pgd
from energy_at.objectives import (
    CleanCrossEntropy,
    LabelSmoothing,
    Objective,
    TradesKL,
    Weighted,
)
from energy_at.training import AdversarialTraining, FastAT, cosine

X, Y = torch.rand(33, 3, 8, 8), torch.arange(33) % 10


class Net(nn.Module):
    """A network whose outputs can be changed, for images of 8x8."""

    def __init__(self, change=lambda logits: logits, classes=10):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
        self.change = change

    def forward(self, x):
        return self.change(self.layers(x))


class Normalized(nn.Module):
    """Batch norm that sees ``positions`` positions of each channel."""

    def __init__(self, positions):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(positions), nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def fit(net=None, x=X, y=Y, loader=None, settings=None, **options):
    """Returns the trainer and the weights after one epoch of batches of 16."""
    torch.manual_seed(0)
    net = Net() if net is None else net
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, inference_mode=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **options,
    )  # fmt: skip
    if loader is None:
        loader = DataLoader(TensorDataset(x, y), 16)
    try:
        trainer.fit(FastAT(net, Linf(8 / 255), **(settings or {})), loader)
    except (ValueError, FloatingPointError):
        # what an attack returns is read with the other extremes, without a wait in the step
        assert trainer.global_step == 0 or "attack" in (settings or {})
        raise
    return trainer, torch.cat([w.detach().flatten() for w in net.parameters()])


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_integer_labels_and_other_precisions_of_images_are_cast(kind):
    torch.manual_seed(0)
    nets = [Net() for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    _, expected = fit(nets[0])
    assert torch.equal(fit(nets[1], y=Y.to(kind))[1], expected)
    assert torch.equal(fit(nets[2], x=X.double())[1], expected)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X, Y + 1, "labels must be from 0 to 9, .* 10 logits, got 1 to 10: labels that count from"),
        (X, Y - 1, "labels must be from 0 to 9, as the network has 10 logits, got -1 to "),
        (X, Y.float(), r"labels must be class indices, integers of shape \(16,\), got float32 of"),
        (X, nn.functional.one_hot(Y), r"integers of shape \(16,\), got int64 of shape \(16, 10\)"),
        (X, Y[:, None], r"labels must be .* of shape \(16,\), got int64 of shape \(16, 1\)"),
        (X[:, 0], Y, r"images must be .*of shape \(batch, channels, height, width\), got float32"),
        ((255 * X).byte(), Y, "images must be floating-point .* got uint8 .*: divide bytes by 255"),
    ],
)
def test_labels_and_images_of_another_form_are_refused(x, y, said):
    with pytest.raises(ValueError, match=said):
        fit(x=x, y=y)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:0], Y[:0], "a batch must hold an image, got none$"),
        (X[:8].to_sparse(), Y[:8], "images must be .*, got a sparse float32 of shape"),
    ],
)
def test_batches_without_images_and_sparse_ones_are_refused(x, y, said):
    whole = (X[:8], Y[:8])
    for batches, steps in ([(x, y), whole], 0), ([whole, (x, y)], 1):
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, inference_mode=False,
        )  # fmt: skip
        with pytest.raises(ValueError, match=said):
            trainer.fit(FastAT(Net(), Linf(8 / 255)), DataLoader(batches, None))
        assert trainer.global_step == steps


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda z: (z, z), "must return logits, one tensor .*, got a tuple: wrap it in a module"),
        (lambda z: {"logits": z}, "must return logits, one tensor .*, got a dict"),
        (lambda z: z.softmax(1), "got probabilities: leave out the softmax"),
        (
            lambda z: z.log_softmax(1),
            r"got log-probabilities, whose E\(x\) is 0: leave out",
        ),
        (lambda z: z[:, :1], r"of 2 classes or more, got \(8, 1\) for 8 images"),
        (lambda z: z[:, :, None], r"of shape \(batch, classes\), .*got \(8, 10, 1\) for 8 images"),
        (lambda z: z.detach(), "returns logits without a gradient with respect to the images"),
        (lambda z: z * torch.nan, "got values that are not finite"),
    ],
)
def test_a_network_without_logits_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        fit(Net(change))


def test_a_network_that_changes_its_images_is_refused():
    class Shifts(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    with pytest.raises(ValueError, match="the network changes the images that it is given"):
        fit(Shifts())


def test_validation_images_and_labels_are_checked_before_the_first_step():
    x, y = X[:8], Y[:8]
    for held_out, net, said in [
        ((x, y + 90), Net(), "labels must be from 0 to 9"),
        ((x, y), Net(lambda z: z.detach()), "returns logits without a gradient"),
    ]:
        module = FastAT(net, Linf(0.1))
        trainer = Trainer(max_epochs=1, logger=False, inference_mode=False, accelerator="cpu",
                          enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
        with pytest.raises(ValueError, match=said):
            trainer.fit(module, DataLoader(list(zip(x, y, strict=True)), 8),
                        DataLoader(list(zip(*held_out, strict=True)), 8))  # fmt: skip


def test_other_batches_frozen_networks_and_trainings_of_no_step_are_refused():
    three = DataLoader(TensorDataset(X, Y, Y), 16)
    with pytest.raises(ValueError, match=r"a batch must be \(images, labels\), got a list of 3"):
        fit(loader=three)
    with pytest.raises(ValueError, match=r"images of shape \(4, 8, 8\): .*mat1"):
        fit(x=torch.rand(33, 4, 8, 8))
    with pytest.raises(ValueError, match="the network has nothing to train"):
        fit(Net().requires_grad_(False))
    of_weights = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(
        ValueError, match=r"^optimizer must be a function of the net.*: 'Net' object"
    ):
        fit(settings={"optimizer": of_weights})
    of_epochs = partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    with pytest.raises(ValueError, match=r"^schedule must be a function of the optimizer and .*:"):
        fit(settings={"schedule": of_epochs})
    for nothing in ({"x": X[:0], "y": Y[:0]}, {"limit_train_batches": 0}):
        with pytest.raises(ValueError, match="trained for no step"):
            fit(**nothing)
    for settings in ({}, {"schedule": cosine}):
        with pytest.raises(ValueError, match="max_steps must be an integer >= 1, or -1 for no"):
            fit(max_steps=0, settings=settings)
    with pytest.raises(ValueError, match=r"precision must be 32-true, bf16-mixed or 64.*8\.96"):
        fit(precision="bf16-true")


def test_lightning_changes_fp16_on_a_cpu_before_a_module_can_see_it():
    """As ``docs/python_api.md`` says."""
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        trainer = Trainer(accelerator="cpu", logger=False, precision="16-mixed")
    assert trainer.precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("label", "got", "steps"), [(10, "got 0 to 10", 1), (-100, "got -100 to 9 at step 2", 2)]
)
def test_a_label_of_a_later_batch_is_named(label, got, steps):
    """Also that of -100, which PyTorch's cross-entropy leaves out without a word."""
    y = Y.clone()
    y[20] = label
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"labels must be from 0 to 9, .* {got}"):
        trainer.fit(FastAT(Net(), Linf(8 / 255)), DataLoader(TensorDataset(X, y), 16))
    assert trainer.global_step == steps


def test_a_last_batch_of_one_image_is_refused_before_the_first_step_where_it_cannot_train():
    assert fit(Net())[0].global_step == 3
    assert fit(Normalized(2))[0].global_step == 3
    assert fit(Normalized(1), X[:32], Y[:32])[0].global_step == 2
    assert fit(Normalized(1), limit_train_batches=2)[0].global_step == 2
    with pytest.raises(ValueError, match="batch_size must be another: the last batch of an epoch"):
        fit(Normalized(1))


def test_a_last_batch_of_one_image_of_an_unknown_length_is_refused_where_it_cannot_train():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(X, Y, strict=True)

    trainer, _ = fit(Normalized(2), loader=DataLoader(Stream(), 16))
    assert trainer.global_step == 3
    trainer.fit_loop.max_epochs = 2
    with pytest.raises(ValueError, match="batch_size must be another: the last batch of an epoch"):
        trainer.fit(FastAT(Normalized(1), Linf(8 / 255)), DataLoader(Stream(), 16))
    assert trainer.global_step == 3 + 2


def test_an_offset_of_all_logits_that_hides_energies_is_said_once(capsys):
    fit(Net(lambda z: z + 1e6))
    assert capsys.readouterr().err.count("warning: logits near 1e+06 leave fp32 a resolution") == 1
    fit(Net(lambda z: z + 100))
    assert "warning: logits" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches must be 1, as every step is one"),
        ({"fast_dev_run": True}, "fast_dev_run must be false, as it would write results"),
        ({"overfit_batches": 2}, "overfit_batches must be 0, as it would validate on"),
        ({"gradient_clip_val": -1.0}, "gradient_clip_val must be a finite number >= 0"),
    ],
)
def test_settings_of_the_trainer_that_the_command_line_refuses_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        fit(**settings)
    assert fit(gradient_clip_val=0)[0].global_step == 3


class Own(Attack):
    """Somebody's attack, ``change`` of the images."""

    steps = 1

    def __init__(self, change, ball=None):
        self.change, self.ball = change, ball

    def _run(self, model, x, y, options):
        return AttackResult(self.change(x))

    def scaled(self, factor):
        return Own(self.change, self.ball.scaled(factor))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x + 0.5, r"adversarial images must lie in \[0, 1\], got .* at step 1"),
        (lambda x: (x + 0.1).clamp(0, 1), "ball of the attack, but a pixel is 0.0686 outside"),
        (lambda x: x.clone().sub_(x.sub_(1e-3).abs()), "Own changes the images in place"),
        (lambda x: x[:2], "Own must return images, float32 of shape"),
    ],
)
def test_an_attack_of_somebody_is_held_to_its_ball_and_to_pixels(change, said):
    with pytest.raises(ValueError, match=said):
        fit(settings={"attack": Own(change, Linf(8 / 255))})
    with pytest.raises(ValueError, match=said.partition(" at step")[0]):
        Own(change, Linf(8 / 255))(Net(), X.clone(), Y)


def test_an_attack_of_somebody_is_held_to_the_radius_of_the_warm_up():
    own = Own(lambda x: (x + 0.03).clamp(0, 1), Linf(8 / 255))
    assert fit(settings={"attack": own})[0].global_step == 3
    with pytest.raises(ValueError, match=r"a pixel is 0.0195 outside at step 1"):
        fit(settings={"attack": own, "eps_warmup_epochs": 1.0})


def test_images_that_are_not_numbers_stop_a_training_and_are_named_by_a_call():
    own = Own(lambda x: x * torch.nan, Linf(8 / 255))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        fit(settings={"attack": own})
    with pytest.raises(ValueError, match=r"adversarial images must .*got \[nan, nan\]: the attack"):
        own(Net(), X, Y)


def test_an_attack_of_somebody_may_leave_its_ball_if_it_says_so():
    beyond = Own(lambda x: (x + 0.1).clamp(0, 1).requires_grad_())
    assert fit(settings={"attack": beyond})[0].global_step == 3
    assert not beyond(Net(), X, Y).x_adv.requires_grad


class Detached:
    def __call__(self, pair):
        return (pair.clean - pair.adv).square().mean(1).detach()


class DetachedProbe:
    traits = TradesKL.traits & ~TradesKL.traits

    def probe(self, vicinity):
        return vicinity.model(vicinity.x).square().mean(1).detach()


@pytest.mark.parametrize("term", [Detached(), DetachedProbe()])
def test_a_regularizer_without_a_gradient_is_refused_before_the_first_step(term):
    with pytest.raises(ValueError, match="returns values without a gradient, and would train"):
        fit(settings={"regularizers": {"own": Weighted(term)}})
    assert fit(settings={"regularizers": {"own": Weighted(term, 0.0)}})[0].global_step == 3


def test_nothing_to_compare_is_refused_and_standard_training_is_not():
    for term, steps in ((CleanCrossEntropy(), 3), (TradesKL(), 0)):
        objective = Objective({"loss": Weighted(term)})
        trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, barebones=True)
        module = AdversarialTraining(Net(), NoAttack(), objective, val_attacks={})
        loader = DataLoader(TensorDataset(X, Y), 16)
        if steps:
            trainer.fit(module, loader)
        else:
            with pytest.raises(ValueError, match="nothing to compare"):
                trainer.fit(module, loader)
        assert trainer.global_step == steps


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (255 * X, Y, r"images must lie in \[0, 1\], got \[0.*: divide bytes by 255"),
        (X - 0.5, Y, r"images must lie in \[0, 1\], got \[-0"),
        (X, Y + 1, "labels must be from 0 to 9, .* got 1 to 10"),
        (X, Y - 101, "labels must be from 0 to 9, .* got -101 to -92"),
    ],
)
def test_a_call_of_an_attack_refuses_pixels_and_labels_out_of_range(x, y, said):
    with pytest.raises(ValueError, match=said):
        pgd(Linf(0.1), steps=1)(Net(), x, y)


def test_a_call_of_an_attack_refuses_networks_without_a_gradient_of_the_images():
    bias = nn.Parameter(torch.zeros(10))
    for net in (Net(lambda z: z.detach()), Net(lambda z: bias.expand(len(z), -1))):
        with pytest.raises(ValueError, match="without a gradient with respect to the images"):
            pgd(Linf(0.1), steps=1)(net, X, Y)


def test_networks_of_16_bits_and_without_weights_are_refused():
    with pytest.raises(ValueError, match="must be float32 or float64, got torch"):
        fit(Net().half())
    with pytest.raises(ValueError, match="the network has nothing to train"):
        fit(nn.Flatten())


class Endless(IterableDataset):
    """Images without a number of them."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "settings",
    [{"eps_warmup_epochs": 1.0}, {"regularizers": {"kl": Weighted(TradesKL(), ramp_epochs=1)}}],
)
def test_a_warm_up_over_epochs_of_no_known_length_is_refused(settings):
    loader = DataLoader(Endless(), 16)
    assert fit(loader=loader)[0].global_step == 3
    assert fit(loader=loader, settings=settings, limit_train_batches=2)[0].global_step == 2
    with pytest.raises(ValueError, match="need epochs of a known length: give the loader a length"):
        fit(loader=loader, settings=settings)


def test_a_regularizer_with_the_name_of_a_term_of_the_loss_is_refused():
    with pytest.raises(ValueError, match="the regularizer adversarial_ce needs another name"):
        FastAT(Net(), Linf(0.1), {"adversarial_ce": Weighted(TradesKL())})


@pytest.mark.parametrize(
    "settings", [{"smoothing": LabelSmoothing(0.1, 4)}, {"attack": LIET(Linf(0.1), classes=4)}]
)
def test_other_classes_than_those_of_the_network_are_refused_before_the_first_step(settings):
    with pytest.raises(ValueError, match=r"classes of L.* must be 10, the number of logits.*got 4"):
        fit(settings=settings)
    assert fit(Net(classes=4), y=Y % 4, settings=settings)[0].global_step == 3


def test_held_out_images_of_several_loaders_are_refused():
    trainer = Trainer(max_epochs=1, accelerator="cpu", barebones=True, inference_mode=False)
    loader = DataLoader(TensorDataset(X, Y), 16)
    with pytest.raises(ValueError, match="held-out images must come from one loader, got several"):
        trainer.validate(FastAT(Net(), Linf(0.1)), [loader, loader], verbose=False)


def test_attacks_of_the_validation_are_held_to_their_ball():
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, inference_mode=False
    )
    own = Own(lambda x: (x + 0.03).clamp(0, 1), Linf(0.01))
    module = FastAT(Net(), Linf(0.1), val_attacks={"own": own})
    with pytest.raises(ValueError, match=r"a pixel is 0.02 outside \(attack own, in validation\)"):
        trainer.validate(module, DataLoader(TensorDataset(X, Y), 16), verbose=False)


def test_an_attack_that_returns_images_alone_is_refused():
    class Bare(Own):
        def _run(self, model, x, y, options):
            return self.change(x)

    with pytest.raises((TypeError, ValueError), match="AttackResult"):  # by the type checker here
        Bare(lambda x: x, Linf(0.1))(Net(), X, Y)
