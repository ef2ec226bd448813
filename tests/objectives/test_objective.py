import pytest
import torch
import torch.nn.functional as F

from energy_at.energy.pair import LogitPair
from energy_at.objectives import (
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    EnergyWeighted,
    Objective,
    Term,
    TradesKL,
    Trait,
    Weighted,
)
from energy_at.objectives.objective import UNDECLARED

TERMS = {
    "clean_ce": CleanCrossEntropy(),
    "adv_ce": AdversarialCrossEntropy(),
    "kl": TradesKL(),
    "der": DER("all"),
    "der_abnormal": DER("abnormal"),
    "der_gamma": DER("all", gamma=0.5),
    "der_detached": DER("all", detach_clean=True),
    "der_start": DER("abnormal", reference="start"),
    "der_start_detached": DER("all", reference="start", detach_clean=True),
}
terms = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())


@pytest.fixture
def pair():
    """Logits with a graph; some of its examples are abnormal and some are not."""
    clean, adv, start = (2 * torch.randn(12, 4) for _ in range(3))
    clean, adv, start = (z.requires_grad_() for z in (clean, adv, start))
    return LogitPair(clean, adv, torch.arange(12) % 4, start)


def gradients(value, pair):
    """Of the logits, clean, adversarial and start; ``None`` where the value has no graph to."""
    return torch.autograd.grad(value, [pair.clean, pair.adv, pair.start], allow_unused=True)


def assert_same_training(ours, theirs, pair):
    """Equal values, and gradients equal bit for bit (no gradient is one of 0)."""
    assert torch.equal(ours, theirs)
    for a, b in zip(gradients(ours, pair), gradients(theirs, pair), strict=True):
        a, b = (torch.zeros(12, 4) if g is None else g for g in (a, b))
        assert torch.equal(a, b)


@terms
def test_terms_give_one_finite_loss_of_each_example(term, pair):
    assert isinstance(term, Term)
    losses = term(pair)
    assert losses.shape == (12,)
    assert losses.isfinite().all()
    assert (losses >= 0).all()


@terms
def test_a_term_looks_at_one_example_at_a_time(term, pair):
    alone = LogitPair(pair.clean[3:4], pair.adv[3:4], pair.y[3:4], pair.start[3:4])
    torch.testing.assert_close(term(alone), term(pair)[3:4])


@terms
def test_traits_say_which_logits_are_trained(term, pair):
    clean, _, start = gradients(term(pair).sum(), pair)
    for grad, trait in ((clean, Trait.TRAINS_CLEAN), (start, Trait.TRAINS_START)):
        assert (grad is not None and grad.abs().sum() > 0) == (trait in term.traits)


@terms
def test_traits_say_which_logits_are_read(term, pair):
    others = {
        Trait.READS_CLEAN: LogitPair(torch.randn(12, 4), pair.adv, pair.y, pair.start),
        Trait.READS_START: LogitPair(pair.clean, pair.adv, pair.y, torch.randn(12, 4)),
    }
    for trait, other in others.items():
        assert torch.equal(term(other), term(pair)) == (trait not in term.traits)


@terms
def test_a_flat_term_has_no_gradient_where_it_is_zero(term):
    logits = torch.randn(12, 4)
    clean, adv, start = (logits.clone().requires_grad_() for _ in range(3))
    same = LogitPair(clean, adv, torch.arange(12) % 4, start)
    values = term(same)
    if Trait.FLAT_AT_ZERO in term.traits:
        assert torch.equal(values, torch.zeros(12))
        for grad in gradients(values.sum(), same):
            assert grad is None or torch.equal(grad, torch.zeros(12, 4))
    else:
        assert isinstance(term, TradesKL | CleanCrossEntropy | AdversarialCrossEntropy)


@pytest.mark.parametrize("term", [TradesKL(), AdversarialCrossEntropy(), DER("all", 0.1)])
def test_gradients_of_the_terms_are_right(term):
    clean, adv = (torch.randn(6, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    y = torch.arange(6) % 4
    assert torch.autograd.gradcheck(lambda c, a: term(LogitPair(c, a, y)), (clean, adv))


# The objective


def test_an_objective_is_the_weighted_sum_of_means(pair):
    losses = Objective(
        {
            "ce": Weighted(CleanCrossEntropy()),
            "kl": Weighted(TradesKL(), 6.0),
            "der": Weighted(DER("abnormal"), 0.25),
        }
    )(pair)
    ce = F.cross_entropy(pair.clean, pair.y)
    kl = F.kl_div(pair.adv.log_softmax(1), pair.clean.softmax(1), reduction="batchmean")
    der = DER("abnormal")(pair).sum() / 12
    torch.testing.assert_close(losses.total, ce + 6 * kl + der / 4)
    assert set(losses.parts) == {"ce", "kl", "der"}
    torch.testing.assert_close(losses.parts["kl"], 6 * kl.detach())
    torch.testing.assert_close(sum(losses.parts.values()), losses.total.detach())
    assert not any(part.requires_grad for part in losses.parts.values())


def test_trades_without_divergence_is_clean_training(pair):
    trades = Objective({"ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 0.0)})
    assert_same_training(trades(pair).total, F.cross_entropy(pair.clean, pair.y), pair)
    assert gradients(trades(pair).total, pair)[1] is None
    assert trades.traits == CleanCrossEntropy().traits


@pytest.mark.parametrize("term", [DER("all"), DER("abnormal", reference="start")])
def test_beta_zero_is_the_base_method_bit_for_bit(term, pair):
    base = {"ce": Weighted(AdversarialCrossEntropy())}
    with_der = Objective(base | {"der": Weighted(term, 0.0)})
    assert_same_training(with_der(pair).total, Objective(base)(pair).total, pair)
    assert with_der.traits == Objective(base).traits
    assert set(with_der(pair).parts) == {"ce"}


def test_a_term_of_weight_zero_is_not_evaluated(pair):
    nothing_to_start_from = LogitPair(pair.clean, pair.adv, pair.y)
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "der": Weighted(DER("all", reference="start"), 0.0),
    }
    assert Objective(terms)(nothing_to_start_from).total.isfinite()


def test_an_objective_has_the_traits_of_all_its_terms():
    terms = {"ce": Weighted(CleanCrossEntropy()), "der": Weighted(TERMS["der_start"])}
    assert Objective(terms).traits == (
        Trait.READS_CLEAN
        | Trait.TRAINS_CLEAN
        | Trait.FITS_CLEAN
        | Trait.READS_START
        | Trait.TRAINS_START
        | Trait.FLAT_AT_ZERO
    )


def test_an_objective_without_terms_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        Objective({})
    with pytest.raises(ValueError, match="at least one term"):
        Objective({"kl": Weighted(TradesKL(), 0.0)})


def test_the_class_of_a_term_is_no_term():
    with pytest.raises(ValueError, match=r"^term must be a term or a probe, such as TradesKL"):
        Weighted(AdversarialCrossEntropy)
    with pytest.raises(ValueError, match=r"^term must be a term, such as TradesKL"):
        EnergyWeighted(AdversarialCrossEntropy)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_makes_no_penalty_is_refused(weight):
    with pytest.raises(ValueError, match=r"^weight must be a finite number"):
        Weighted(TradesKL(), weight)


@pytest.mark.parametrize("epochs", [-1.0, float("nan"), float("inf")])
def test_a_ramp_without_meaning_is_refused(epochs):
    with pytest.raises(ValueError, match=r"^ramp_epochs must be a finite number"):
        Weighted(TradesKL(), 1.0, ramp_epochs=epochs)


def test_a_ramp_rises_linearly_from_zero_and_stays():
    ramp = Weighted(TradesKL(), 6.0, ramp_epochs=4.0)
    epochs = [0.0, 1.0, 2.5, 4.0, 100.0, float("inf")]
    assert [ramp.at(e) for e in epochs] == pytest.approx([0, 1.5, 3.75, 6, 6, 6])
    assert {Weighted(TradesKL(), 6.0).at(e) for e in epochs} == {6.0}


def test_an_objective_follows_the_ramps_of_its_terms(pair):
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "der": Weighted(DER("all"), 2.0, ramp_epochs=10.0),
    }
    objective = Objective(terms)
    ce, der = AdversarialCrossEntropy()(pair).mean(), DER("all")(pair).mean()
    for epoch, weight in ((0.0, 0), (2.5, 0.5), (10.0, 2), (20.0, 2)):
        torch.testing.assert_close(objective(pair, epoch).total, ce + weight * der)
    torch.testing.assert_close(objective(pair).total, ce + 2 * der)


# Leaving flat terms out


def objectives(**settings):
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "kl": Weighted(TradesKL(), 2.0),
        "der": Weighted(DER("all", **settings), 0.5, ramp_epochs=1.0),
    }
    return Objective(terms, skip_flat=True), Objective(terms)


@pytest.mark.parametrize("gamma", [0.0, 3.0, 1e3], ids=["active", "partly", "inactive"])
@pytest.mark.parametrize("epoch", [0.0, 1.0])
def test_leaving_flat_terms_out_changes_neither_value_nor_gradients(gamma, epoch, pair):
    skipping, plain = objectives(gamma=gamma)
    assert_same_training(skipping(pair, epoch).total, plain(pair, epoch).total, pair)
    assert skipping(pair, epoch).parts == plain(pair, epoch).parts


def test_a_term_that_is_barely_positive_is_computed(pair):
    gamma = DER("all")(pair).max().item() - 1e-4
    skipping, plain = objectives(gamma=gamma)
    assert 0 < plain(pair).parts["der"] < 1e-4
    assert_same_training(skipping(pair).total, plain(pair).total, pair)


def test_a_flat_term_is_left_out_of_the_graph(pair):
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "der": Weighted(DER("all", gamma=1e3), 0.5),
    }
    assert gradients(Objective(terms, skip_flat=True)(pair).total, pair)[0] is None
    assert gradients(Objective(terms)(pair).total, pair)[0] is not None
    terms["der"] = Weighted(DER("all"), 0.5)
    assert gradients(Objective(terms, skip_flat=True)(pair).total, pair)[0].abs().sum() > 0


def test_an_objective_that_is_flat_altogether_still_has_a_gradient_of_zero(pair):
    terms = {"der": Weighted(DER("all", gamma=1e3))}
    total = Objective(terms, skip_flat=True)(pair).total
    assert total == 0
    assert torch.equal(gradients(total, pair)[1], torch.zeros(12, 4))


def test_no_term_that_is_not_flat_is_ever_left_out():
    clean = torch.tensor([[1e4, 0.0]], requires_grad=True)
    pair = LogitPair(clean, torch.zeros(1, 2), torch.tensor([0]))
    objective = Objective({"ce": Weighted(CleanCrossEntropy())}, skip_flat=True)
    assert objective(pair).total == 0
    assert objective(pair).total.requires_grad


# Traits are tried


class Distance:
    """Distance of clean and adversarial logits."""

    def __init__(self, traits=None, sign=1):
        self.sign = sign
        if traits is not None:
            self.traits = traits

    def __call__(self, pair):
        return self.sign * (pair.clean - pair.adv).square().sum(1)


@terms
def test_traits_of_the_published_terms_hold(term):
    before = torch.get_rng_state()
    Objective({"term": Weighted(term)}).require_traits(4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Distance(Trait.NONE), r"Distance\) reads clean and trains clean logits undeclared: give "
         r"it traits = Trait.READS_CLEAN \| Trait.TRAINS_CLEAN$"),
        (Distance(Trait.READS_CLEAN), "trains clean logits undeclared"),
        (Distance(UNDECLARED | Trait.FLAT_AT_ZERO, sign=-1), "is negative: take Trait.FLAT_AT"),
        (lambda pair: (pair.adv[:, 0], pair.y), "returns a tuple for .* one for each"),
        (lambda pair: pair.adv.mean(), r"returns values of shape \(\) for .* one for each"),
        (lambda pair, y: pair.adv[y, 0], r"mine \(function\) must take a LogitPair alone: missing"),
    ],
)  # fmt: skip
def test_a_term_that_reads_or_trains_what_it_does_not_declare_is_refused(term, message):
    with pytest.raises(ValueError, match=message):
        Objective({"mine": Weighted(term)}).require_traits(4)


def test_a_term_without_traits_reads_and_trains_clean_logits(pair):
    objective = Objective({"mine": Weighted(Distance())})
    objective.require_traits(4)
    assert objective.traits == UNDECLARED
    assert torch.equal(objective(pair).total, Distance()(pair).mean())
