"""Detection rates, against scikit-learn and their definitions; scores, image by image."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from energy_at.analysis.detection import SCORES, Detection, Rates, Scores, rate_rows, scores_of
from energy_at.attacks import Linf, pgd
from tests.helpers.nets import TinyNet

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1.0, 1e4])  # a sigmoid of large scores would make ties
@pytest.mark.parametrize("digits", [1, 8])  # ties in the scores, and none
def test_rates_are_those_of_scikit_learn(scale, digits):
    natural = (scale * RNG.normal(1, 1, 300)).round(digits - 1)
    others = (scale * RNG.normal(0, 1, 170)).round(digits - 1)
    rates = Rates(natural, others)
    truth, scores = np.repeat([1, 0], [300, 170]), np.concatenate([natural, others])
    assert rates.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert rates.aupr == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(rates.roc, (fpr, tpr), atol=1e-6)
    # by its definition: the highest threshold that 95 % of the natural images reach
    threshold = np.sort(natural)[::-1][int(np.ceil(0.95 * 300)) - 1]
    assert rates.fpr95 == pytest.approx((others >= threshold).mean(), abs=1e-6)


def test_rates_of_scores_that_separate_and_of_scores_that_say_nothing():
    apart, same = Rates(np.array([3.0, 4.0]), np.array([1.0, 2.0])), Rates(*np.ones((2, 5)))
    assert (apart.auroc, apart.aupr, apart.fpr95) == (1, 1, 0)
    assert (same.auroc, same.aupr, same.fpr95) == (0.5, 0.5, 1)


def test_each_score_counts_in_its_direction():
    natural = Scores(np.array([-5.0]), np.array([0.9]), np.array([0.1]))
    others = Scores(np.array([-1.0]), np.array([0.5]), np.array([2.0]))
    rows = rate_rows(
        {"run": Detection(natural, {"svhn": others}, {"pgd": natural})}, {"pgd": "PGD"}
    )
    assert [(row["images"], row["score"], row["AUROC"]) for row in rows] == [
        *(("svhn", score, 1.0) for score in SCORES), *(("PGD", score, 0.5) for score in SCORES)
    ]  # fmt: skip


def test_scores_are_of_the_predicted_class_whatever_the_label():
    torch.manual_seed(0)
    net, x, probe = TinyNet().eval(), torch.rand(5, 3, 8, 8), pgd(Linf(0.05), steps=3)
    found = scores_of(net, probe, x, torch.Generator().manual_seed(1))
    logits = net(x)
    x_adv = probe(net, x, logits.argmax(1), generator=torch.Generator().manual_seed(1)).x_adv
    for i, (f, f_adv) in enumerate(zip(logits.tolist(), net(x_adv).tolist(), strict=True)):
        k = int(np.argmax(f))
        e, e_adv = (-np.log(np.exp(row).sum()) for row in (f, f_adv))
        assert found.energy[i] == pytest.approx(e, abs=1e-6)
        assert found.max_softmax[i] == pytest.approx(np.exp(f[k] + e), abs=1e-6)
        assert found.shift_norm[i] == pytest.approx(np.hypot(e - e_adv, f_adv[k] - f[k]), abs=1e-6)
