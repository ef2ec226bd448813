"""Every check passes a healthy network and warns of one that is broken in just that way."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from energy_at.attacks import LibraryAttack, fgsm, pgd, restarted_pgd
from energy_at.attacks.registry import CLEAN, AttackKey
from energy_at.attacks.threat import L2, Linf
from energy_at.data import ImageSet
from energy_at.evaluation.gradient_masking import black_box, network_checks, stronger
from energy_at.evaluation.robustness import Evaluator
from tests.helpers.digits_net import digits_net

NAMES = ["deterministic forward", "outputs are logits", "input gradients", "scale of the logits"]
EPS = 8 / 255
FGSM, PGD, SQUARE = (AttackKey(name, str(EPS)) for name in ("fgsm", "pgd", "square"))


class Wrapped(nn.Module):
    """A network with something before and something after it."""

    def __init__(self, net, before=nn.Identity(), after=nn.Identity()):  # noqa: B008
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Trap(nn.Module):
    """The margin of class 0 over class 1 falls to a small valley near ``x`` and on to -0.5 at eps.

    It depends on ``v``, the mean difference of the two channels in units of eps, which is 0 for
    the images below. Steps of eps / 4 from about 0 go back and forth across the valley.
    """

    def forward(self, x):
        v = (x[:, 0] - x[:, 1]).flatten(1).mean(1) / (2 * EPS)
        margin = 1 - 1.5 * v - 0.2 * torch.sin(4 * math.pi * v)
        never = torch.full_like(margin, -9)
        return torch.stack([margin, torch.zeros_like(margin), never, never], 1)


@pytest.fixture(scope="module")
def healthy():
    net, images = digits_net()
    return net, Evaluator(images.first(100))


@pytest.fixture(scope="module")
def trapped():
    """The exam of a trap: its images have two equal channels, away from the ends of the range."""
    generator = torch.Generator().manual_seed(0)
    channel = torch.randint(60, 196, (20, 1, 16, 16), dtype=torch.uint8, generator=generator)
    exam = Evaluator(ImageSet(channel.repeat(1, 2, 1, 1), torch.zeros(20, dtype=torch.long)))
    attacks = {
        FGSM: fgsm(Linf(EPS)),
        PGD: restarted_pgd(Linf(EPS), steps=20, restarts=2),
        SQUARE: LibraryAttack(Linf(EPS), "square", queries=100),
    }
    return exam.correct(Trap(), attacks)


def found(net, exam):
    """The checks of a network by name."""
    return {check.name: check for check in network_checks(net, exam)}


def warned(net, exam):
    """Names of the checks that do not pass."""
    return [name for name, check in found(net, exam).items() if not check.passed]


# A network


def test_a_healthy_network_passes_every_check(healthy):
    checks = network_checks(*healthy)
    assert [check.name for check in checks] == NAMES
    assert all(check.passed is True for check in checks)


@pytest.mark.parametrize("std", [0.01, 1.0])
def test_noise_in_the_forward_pass_is_found(healthy, std):
    net, exam = healthy
    noisy = Wrapped(net, before=Called(lambda x: x + std * torch.randn_like(x)))
    assert warned(noisy, exam) == ["deterministic forward"]


def test_dropout_that_evaluation_mode_turns_off_is_no_noise(healthy):
    net, exam = healthy
    dropping = Wrapped(net, before=nn.Dropout(0.5)).train()
    assert warned(dropping, exam) == []
    assert dropping.before.training


def test_dropout_that_stays_on_is_found(healthy):
    net, exam = healthy
    always = Called(lambda x: nn.functional.dropout(x, 0.5, training=True))
    assert warned(Wrapped(net, before=always), exam) == ["deterministic forward"]


def test_outputs_that_are_probabilities_are_found(healthy):
    net, exam = healthy
    assert warned(Wrapped(net, after=nn.Softmax(1)), exam) == ["outputs are logits"]


def test_logits_that_happen_to_lie_between_0_and_1_are_logits(healthy):
    net, exam = healthy
    assert warned(Wrapped(net, after=nn.Sigmoid()), exam) == []


@pytest.mark.parametrize(
    "flat",
    [lambda x: (7 * x).round() / 7, lambda x: (x > 0.5).float()],
    ids=["quantized", "thresholded"],
)
def test_an_input_that_is_cut_off_has_no_gradient_for_any_image_that_is_right(healthy, flat):
    net, exam = healthy
    broken = Wrapped(net, before=Called(flat))
    right = int(exam.correct(broken, {})[CLEAN].sum())
    assert right > 40
    assert warned(broken, exam) == ["input gradients"]
    finding = found(broken, exam)["input gradients"].finding
    assert finding == f"zero for {right} of {right} correctly classified images"


def test_a_network_that_keeps_no_graph_has_no_gradient(healthy):
    net, exam = healthy
    broken = Wrapped(net, after=Called(lambda logits: logits.detach()))
    assert warned(broken, exam) == ["input gradients"]


def test_gradients_of_zero_are_counted_among_the_images_that_are_right(healthy):
    net, exam = healthy
    brightness = exam.images.pixels.float().mean((1, 2, 3))
    dark = brightness < brightness.median()

    def cut_off_if_dark(x):
        mask = (255 * x).mean((1, 2, 3)) < brightness.median() - 1e-3
        return torch.where(mask[:, None, None, None], x.detach(), x)

    right = exam.correct(net, {})[CLEAN]
    n, total = int((right & dark).sum()), int(right.sum())
    assert 0 < n < total
    finding = found(Wrapped(net, before=Called(cut_off_if_dark)), exam)["input gradients"].finding
    assert finding == f"zero for {n} of {total} correctly classified images"


def test_logits_beyond_the_resolution_of_fp32_are_found_and_so_are_their_gradients(healthy):
    net, exam = healthy
    loud = Wrapped(net, after=Called(lambda logits: 1000 * logits))
    assert warned(loud, exam) == ["input gradients", "scale of the logits"]


def test_quiet_logits_pass(healthy):
    net, exam = healthy
    assert warned(Wrapped(net, after=Called(lambda logits: 1e-3 * logits)), exam) == []


def test_what_is_found_does_not_depend_on_the_batch_size(healthy):
    net, exam = healthy
    expected = network_checks(net, exam)
    assert all(network_checks(net, replace(exam, batch_size=n)) == expected for n in (7, 99))


def test_the_checks_leave_the_network_alone(healthy):
    net, exam = healthy
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    network_checks(net, exam)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    net.eval()


# Attacks


def test_fgsm_that_beats_pgd_is_found(trapped):
    by_fgsm, by_pgd = trapped[FGSM], trapped[PGD]
    assert by_fgsm.sum() == 0
    assert by_pgd.sum() >= 15
    check = stronger(trapped, FGSM, PGD)
    assert check.passed is False
    assert check.name == f"PGD stronger than FGSM at {EPS}"
    assert check.finding == (
        f"{by_pgd.sum()} images correct under PGD, 0 under FGSM; "
        f"{by_pgd.sum()} broken by FGSM alone"
    )
    assert "gradients are masked" in check.meaning


def test_a_black_box_that_beats_pgd_is_found(trapped):
    by_pgd, by_square = trapped[PGD], trapped[SQUARE]
    assert by_square.sum() == 0
    check = black_box(by_pgd, by_square, str(EPS))
    assert check.passed is False
    assert f"{by_pgd.sum()} broken by Square alone" in check.finding
    assert "overstated" in check.meaning


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.3)], ids=["linf", "l2"])
def test_attacks_on_a_healthy_network_are_as_strong_as_they_should_be(healthy, ball):
    net, exam = healthy
    square = LibraryAttack(ball, "square", queries=100)
    outcomes = exam.correct(net, {FGSM: fgsm(ball), PGD: pgd(ball), SQUARE: square})
    assert 0 < outcomes[PGD].sum() < outcomes[SQUARE].sum() < outcomes[CLEAN].sum()
    assert stronger(outcomes, FGSM, PGD).passed
    assert black_box(outcomes[PGD], outcomes[SQUARE], "").passed


def test_a_black_box_beats_gradients_that_are_not_there(healthy):
    net, exam = healthy
    broken = Wrapped(net, before=Called(lambda x: (7 * x).round() / 7))
    ball = Linf(0.15)
    attacks = {PGD: pgd(ball), SQUARE: LibraryAttack(ball, "square", queries=100)}
    outcomes = exam.correct(broken, attacks)
    assert black_box(outcomes[PGD], outcomes[SQUARE], "0.15").passed is False


def right(alone, of_other, both=10):
    """Outcomes of two attacks of which the first breaks ``alone`` images that the second does not.

    ``of_other`` are broken by the second alone, ``both`` by both, ten by none.
    """
    first = [False] * alone + [True] * of_other + [False] * both + [True] * 10
    second = [True] * alone + [False] * of_other + [False] * both + [True] * 10
    return {FGSM: torch.tensor(first), PGD: torch.tensor(second)}


@pytest.mark.parametrize(
    ("alone", "of_other", "passed"),
    [
        (0, 0, True),
        (4, 0, True),  # 1/2^4 = 0.0625: chance could make it
        (5, 0, False),  # 1/2^5 = 0.031
        (7, 1, False),  # (1 + 8)/2^8 = 0.035
        (6, 1, True),  # (1 + 7)/2^7 = 0.0625
        (30, 30, True),
        (5, 50, True),
        (42, 26, False),  # 0.0340
        (41, 27, True),  # 0.0573
    ],
)
def test_a_difference_that_chance_could_make_is_no_warning(alone, of_other, passed):
    outcomes = right(alone, of_other)
    assert stronger(outcomes, FGSM, PGD).passed is passed
    assert black_box(outcomes[PGD], outcomes[FGSM], "").passed is passed
