"""What CW and targeted attacks raise, against closed forms, foolbox and slow loops.

In double precision, because a gradient that rounds to the other side of 0 flips a sign step.
"""

import foolbox
import pytest
import torch
import torch.nn.functional as F

from energy_at.attacks import GradientAttack, cw, fgsm, targeted
from energy_at.attacks.gradient import ReachTarget, leave_clean_prediction, widen_margin
from energy_at.attacks.threat import L2, Linf
from tests.helpers.nets import TinyNet

EPS, CLASSES = 8 / 255, 5
X = torch.rand(6, 3, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % CLASSES
W = torch.randn(CLASSES, 48, dtype=torch.double, generator=torch.Generator().manual_seed(1))
LOGITS = torch.tensor([[3.0, 1.0, -2.0, 2.0], [3.0, 1.0, -2.0, 2.0], [0.0, 1.0, 2.0, -4.0]])
TARGETS = {"likeliest": [3, 0, 2], "least_likely": [2, 2, 0], "next": [1, 2, 0]}
LABELS = torch.tensor([0, 1, 3])  # of LOGITS; in the last row the label is the least likely of all


def linear(x):
    return x.flatten(1) @ W.T


def rows(indices):
    """The gradients of these logits of the linear classifier, as images."""
    return W[indices].reshape(-1, 3, 4, 4)


def stepped(x, gradient, ball):
    """One step of length eps along a known gradient, inside the pixel range."""
    if isinstance(ball, Linf):
        return (x + ball.eps * gradient.sign()).clamp(0, 1)
    unit = torch.stack([g / torch.linalg.norm(g) for g in gradient])
    return (x + ball.eps * unit).clamp(0, 1)


@pytest.fixture
def victim():
    """A network in evaluation mode, with running statistics of its own, its images and labels."""
    net, x = TinyNet().double(), torch.rand(6, 3, 8, 8, dtype=torch.double)
    for _ in range(20):
        net(torch.rand(32, 3, 8, 8, dtype=torch.double))
    net.eval()
    return net, x, net(x).argmax(1)


balls = pytest.mark.parametrize("ball", [Linf(EPS), L2(0.3)], ids=["linf", "l2"])


# The margin


def test_the_margin_is_that_of_the_likeliest_wrong_class_to_the_label():
    gain = widen_margin(linear, X[:3], LABELS)(LOGITS)
    assert gain.tolist() == [2.0 - 3.0, 3.0 - 1.0, 2.0 + 4.0]


def test_the_clean_prediction_is_kept_in_fp32_under_autocast():
    """Its logits are bf16, their softmax is not: the divergence to themselves is 0."""
    net, x, y = TinyNet().eval(), torch.rand(4, 3, 8, 8), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gain = leave_clean_prediction(net, x, y)
        divergence = gain(net(x).float())
    torch.testing.assert_close(divergence, torch.zeros(4), rtol=0, atol=1e-6)


def test_the_margin_is_positive_exactly_for_images_that_are_wrong(victim):
    net, x, _ = victim
    y = torch.arange(6) % 4
    logits = net(x)
    wrong = logits.argmax(1) != y
    assert 0 < wrong.sum() < 6
    assert torch.equal(widen_margin(net, x, y)(logits) > 0, wrong)


@balls
def test_one_step_on_the_margin_of_a_linear_classifier_is_known(ball):
    logits = linear(X)
    logits[torch.arange(6), Y] = -torch.inf
    gradient = rows(logits.argmax(1)) - rows(Y)
    found = GradientAttack(ball, alpha=ball.eps, steps=1, goal=widen_margin)(linear, X, Y)
    torch.testing.assert_close(found.x_adv, stepped(X, gradient, ball))


def test_cw_on_two_classes_reaches_the_corner_that_is_worst_for_a_linear_classifier():
    y = torch.zeros(6, dtype=torch.long)
    found = cw(Linf(EPS))(lambda x: linear(x)[:, :2], X, y).x_adv
    corner = (X + EPS * (rows([1]) - rows([0])).sign()).clamp(0, 1)
    torch.testing.assert_close(found, corner)


def test_cw_does_not_see_the_scale_of_the_logits_and_the_cross_entropy_does(victim):
    net, x, y = victim[0].float(), victim[1].float(), victim[2]

    def loud(images):
        return 2.0**20 * net(images)

    attack = GradientAttack(Linf(EPS), alpha=EPS / 4, steps=10, goal=widen_margin)
    assert torch.equal(attack(loud, x, y).x_adv, attack(net, x, y).x_adv)
    assert torch.equal(fgsm(Linf(EPS))(loud, x, y).x_adv, x)  # its gradient has underflowed


@pytest.mark.parametrize("steps", [1, 10])
def test_cw_is_pgd_on_the_margin(victim, steps):
    net, x, y = victim
    expected = []
    for i in range(6):
        label, x_adv = int(y[i]), x[i : i + 1].clone()
        for _ in range(steps):
            x_adv.requires_grad_()
            scores = net(x_adv)[0]
            others = [scores[k] for k in range(4) if k != label]
            (scores[label] - torch.stack(others).max()).backward()
            x_adv = x_adv.detach() - EPS / 4 * x_adv.grad.sign()
            x_adv = x_adv.clamp(x[i] - EPS, x[i] + EPS).clamp(0, 1)
        expected.append(x_adv)
    ours = GradientAttack(Linf(EPS), alpha=EPS / 4, steps=steps, goal=widen_margin)
    torch.testing.assert_close(ours(net, x, y).x_adv, torch.cat(expected), rtol=0, atol=1e-6)


# The targets


@pytest.mark.parametrize(("target", "expected"), TARGETS.items(), ids=TARGETS.keys())
def test_targets_are_wrong_classes_chosen_at_the_clean_image(target, expected):
    gain = ReachTarget(target)(lambda _: LOGITS, X[:3], LABELS)
    elsewhere = torch.randn(3, 4)
    log_p = elsewhere.log_softmax(1)
    torch.testing.assert_close(gain(elsewhere), log_p[torch.arange(3), expected])


@balls
def test_one_step_to_the_next_class_of_a_linear_classifier_is_known(ball):
    p = linear(X).softmax(1)
    gradient = rows((Y + 1) % CLASSES) - (p @ W).reshape(X.shape)
    goal = ReachTarget("next")
    found = GradientAttack(ball, alpha=ball.eps, steps=1, goal=goal)(linear, X, Y)
    torch.testing.assert_close(found.x_adv, stepped(X, gradient, ball))


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_pgd_is_that_of_foolbox(victim, norm, steps):
    net, x, y = victim
    ball = {"linf": Linf(EPS), "l2": L2(0.5)}[norm]
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    expected = attack(abs_stepsize=ball.eps / 4, steps=steps, random_start=False).run(
        foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"),
        x,
        foolbox.criteria.TargetedMisclassification((y + 1) % 4),
        epsilon=ball.eps,
    )
    ours = GradientAttack(ball, alpha=ball.eps / 4, steps=steps, goal=ReachTarget("next"))
    found = ours(net, x, y).x_adv
    assert not torch.equal(found, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_a_large_ball_takes_every_image_to_its_target(victim, target):
    net, x, y = victim
    x_adv = targeted(Linf(0.5), target=target)(net, x, y).x_adv
    gain = ReachTarget(target)(net, x, y)
    assert (gain(net(x_adv)) > gain(net(x))).all()
    assert (net(x_adv).argmax(1) != y).all()


def test_the_start_of_another_goal_reports_no_gradient_of_the_cross_entropy(victim):
    assert cw(Linf(EPS))(*victim).start_grad is None
    assert targeted(Linf(EPS))(*victim).start_grad is None
    assert fgsm(Linf(EPS))(*victim).start_grad is not None


def test_the_margin_and_the_cross_entropy_agree_on_two_classes():
    logits, y = torch.randn(6, 2, dtype=torch.double), torch.arange(6) % 2
    margin = widen_margin(linear, X, y)(logits)
    torch.testing.assert_close(F.softplus(margin), F.cross_entropy(logits, y, reduction="none"))
