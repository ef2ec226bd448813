"""Scores against closed forms, and against torch-fidelity on files of the same images."""

import builtins
import json
import math
import re
import subprocess
import sys

import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from energy_at.core.extras import install
from energy_at.models import small
from energy_at.sampling.quality import (
    Classifier,
    EfficientNetLite0,
    Extractor,
    Inception,
    NoExtractor,
    compute_scores,
    extract_features,
    most_confident,
    require_enough,
)
from energy_at.sampling.training_images import Embedding

CPU = torch.device("cpu")
EQUAL = {
    "inception_score": "inception_score_mean",
    "inception_score_std": "inception_score_std",
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "precision": "precision",
    "recall": "recall",
}


class Stub(FeatureExtractorBase):
    """Bytes of three channels to a few numbers, linearly."""

    def __init__(self, name="stub", features_list=("logits", "values"), **_):
        super().__init__(name, list(features_list))
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3 * 4 * 5, 6, generator=generator) / 100)

    @staticmethod
    def get_provided_features_list():
        return ("logits", "values")

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "values"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, pixels):
        assert pixels.dtype == torch.uint8
        seen = pixels.flatten(1).float() @ self.weight
        return tuple({"logits": seen[:, :3], "values": seen}[name] for name in self.features_list)


class Lite0(Stub):
    """Our EfficientNet, as torch-fidelity calls extractors."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)
        self.net = EfficientNetLite0().load(CPU)

    def forward(self, pixels):
        found = dict(zip(("logits", "values"), self.net(pixels), strict=True))
        return tuple(found[name] for name in self.features_list)


STUB = Stub()


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_feature_extractor("stub", Stub)
    register_feature_extractor("efficientnet-lite0", Lite0)
    yield
    del FEATURE_EXTRACTORS_REGISTRY["stub"]
    del FEATURE_EXTRACTORS_REGISTRY["efficientnet-lite0"]


def images(n, *, seed=0, shape=(3, 4, 5), low=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, *shape), generator=generator, dtype=torch.uint8)


def seen(extractor, pixels):
    return extract_features(extractor, pixels, CPU, "", progress=False)


def normal(n, mean, covariance, *, exact=False):
    """Features of a normal distribution; their own mean and covariance are its own if ``exact``."""
    z = torch.randn(n, len(mean), dtype=torch.double)
    if exact:
        z = z - z.mean(0)
        z = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T.cov()), z.T, upper=False).T
    return Embedding(torch.zeros(n, 2), mean + z @ torch.linalg.cholesky(covariance).T)


def covariance(seed):
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return mixing @ mixing.T + torch.eye(4)


def frechet(mean, other_mean, first, second):
    """Tr sqrt(AB) is the sum of the roots of the eigenvalues of AB."""
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    gap = (mean - other_mean).square().sum()
    return float(gap + first.trace() + second.trace() - 2 * roots)


# Closed forms


def test_fid_of_gaussians_is_known():
    mean, other = torch.zeros(4).double(), torch.tensor([1.0, -2, 0, 0.5]).double()
    first, second = covariance(1), covariance(2)
    expected = frechet(mean, other, first, second)
    exactly = [normal(500, *law, exact=True) for law in ((mean, first), (other, second))]
    assert compute_scores(*exactly)["fid"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_fid_of_samples_of_gaussians_is_nearly_known():
    mean, other = torch.zeros(4).double(), torch.tensor([1.0, -2, 0, 0.5]).double()
    first, second = covariance(1), covariance(2)
    expected = frechet(mean, other, first, second)
    drawn = [normal(1500, *law) for law in ((mean, first), (other, second))]
    assert compute_scores(*drawn)["fid"] == pytest.approx(expected, rel=0.15)


def test_fid_of_a_shift_is_its_square():
    mean, apart = torch.zeros(4).double(), torch.tensor([3.0, 0, 4, 0]).double()
    sets = [normal(100, at, torch.eye(4).double(), exact=True) for at in (mean, apart)]
    assert compute_scores(*sets)["fid"] == pytest.approx(25, rel=1e-6)


def test_a_set_against_itself_is_perfect():
    whole = normal(100, torch.zeros(4).double(), covariance(1))
    found = compute_scores(whole, whole)
    assert found["fid"] == pytest.approx(0, abs=1e-5)
    assert (found["precision"], found["recall"]) == (1, 1)


def test_sets_far_from_each_other_share_nothing():
    ours = normal(100, torch.zeros(4).double(), torch.eye(4).double())
    theirs = normal(80, torch.full((4,), 100.0).double(), torch.eye(4).double())
    found = compute_scores(ours, theirs)
    assert (found["precision"], found["recall"]) == (0, 0)
    assert (found["images"], found["reference"], found["kid_subset"]) == (100, 80, 80)
    assert found["kid"] > 1


def test_precision_falls_with_outliers_and_recall_with_missing_modes():
    real = torch.cat([torch.randn(60, 4), torch.randn(60, 4) + 50])
    ours = torch.cat([torch.randn(60, 4), torch.randn(30, 4) - 50])
    found = compute_scores(
        Embedding(torch.zeros(90, 2), ours), Embedding(torch.zeros(120, 2), real)
    )
    assert found["precision"] == pytest.approx(2 / 3, abs=0.08)
    assert found["recall"] == pytest.approx(1 / 2, abs=0.08)


@pytest.mark.slow
def test_the_inception_score_counts_classes_that_are_distinguished():
    values = torch.randn(2000, 4)
    sure = 100 * torch.eye(5)[torch.arange(2000) % 5]
    found = compute_scores(Embedding(sure, values), Embedding(sure, values))
    assert found["inception_score"] == pytest.approx(5, rel=0.03)  # of ten parts of 200 images
    assert found["inception_score"] <= 5
    same = torch.randn(1, 5).expand(2000, -1)
    found = compute_scores(Embedding(same, values), Embedding(same, values))
    assert found["inception_score"] == pytest.approx(1)
    assert found["inception_score_std"] == pytest.approx(0, abs=1e-6)


def test_samples_ordered_by_class_have_the_same_scores():
    """The parts of IS would each be of one class."""
    label = torch.arange(600) % 3
    logits = 3 * torch.eye(3)[label] + torch.randn(600, 3)
    images = Embedding(logits, torch.randn(600, 4) + label[:, None])
    reference = Embedding(logits[:60], torch.randn(60, 4) + 1)
    order = label.argsort(stable=True)
    found, by_class = (
        compute_scores(part, reference)
        for part in (images, Embedding(logits[order], images[1][order]))
    )
    error = found["inception_score_std"] / 10**0.5
    assert by_class["inception_score"] == pytest.approx(found["inception_score"], abs=2 * error)
    assert 2 * error < 0.05 * found["inception_score"]
    for name in ("fid", "precision", "recall"):
        assert by_class[name] == pytest.approx(found[name], rel=1e-6)


@pytest.mark.parametrize("share", [1, 0.9, 0.34, 0.1])
def test_the_most_confident_of_each_predicted_class_are_kept(share):
    logits = torch.randn(80, 4)
    confidence, predicted = logits.softmax(1).max(1)
    expected = []
    for label in range(4):
        places = [i for i in range(80) if predicted[i] == label]
        places.sort(key=lambda i: -float(confidence[i]))
        expected += places[: int(share * len(places))]
    assert most_confident(logits, share).tolist() == sorted(expected)


def test_more_features_than_images_are_said():
    for n, full in ((60, False), (200, True)):
        whole = Embedding(torch.zeros(n, 2), torch.randn(n, 60))
        assert compute_scores(whole, whole)["full_rank"] is full


@pytest.mark.parametrize(
    ("ours", "real", "said"), [(49, 60, "49 images"), (60, 49, "49 reference")]
)
def test_a_handful_is_refused(ours, real, said):
    with pytest.raises(ValueError, match=f"{said}.* too few for FID"):
        require_enough(ours, real)
    with pytest.raises(ValueError, match="too few"):
        compute_scores(*(Embedding(torch.zeros(n, 2), torch.randn(n, 3)) for n in (ours, real)))


# Extractors


def test_grey_images_are_shown_in_three_channels():
    grey = images(70, shape=(1, 4, 5))
    shown = seen(STUB, grey)
    assert shown.features.equal(seen(STUB, grey.repeat(1, 3, 1, 1)).features)
    with torch.no_grad():
        expected = grey.repeat(1, 3, 1, 1).flatten(1).float() @ STUB.weight
    torch.testing.assert_close(shown.features, expected)
    torch.testing.assert_close(shown.logits, expected[:, :3])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_is_looked_through_at_its_last_layer(channels):
    net = small(channels=channels, classes=4, width=4, mean=[0.5] * channels, std=[1] * channels)
    extractor = Classifier().load(CPU, net)
    pixels = images(5, shape=(channels, 8, 8))
    found = seen(extractor, pixels)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        torch.testing.assert_close(found.logits, net(pixels / 255))
        torch.testing.assert_close(found.logits, linear(found.features))


def test_a_classifier_that_is_not_there_is_asked_for():
    with pytest.raises(ValueError, match=r"^classifier must be a classifier of the data set"):
        Classifier().load(CPU, None)


def test_nothing_is_measured_by_nothing():
    assert NoExtractor().load(CPU) is None


@pytest.mark.parametrize("choice", [NoExtractor(), Inception(), EfficientNetLite0(), Classifier()])
def test_all_are_extractors_and_say_whose_features_they_are(choice):
    assert isinstance(choice, Extractor)
    assert choice.name in {"none", "inception-v3-compat", "efficientnet-lite0", "classifier"}


def test_weights_that_are_not_there_are_one_line():
    with pytest.raises(ValueError, match=r"^weights must be a file that exists, got 'no.pth'$"):
        Inception("no.pth").load(CPU)


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(
        ValueError, match=r"^the weights of Inception cannot be downloaded \(\[Errno 111\] Con"
    ):
        Inception().load(CPU)


@pytest.mark.parametrize("content", [b"", b"no weights", {"fc.weight": torch.zeros(3)}, [1]])
def test_weights_of_something_else_are_one_line(tmp_path, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"^weights must be a file of .*inception.*weights.pth'$"
    ) as caught:
        Inception(str(path)).load(CPU)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_its_extra(monkeypatch):
    def importing(name, *args, find=builtins.__import__):
        if name.startswith("efficientnet"):
            raise ImportError(name)
        return find(name, *args)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ValueError, match=re.escape(install("offline-quality"))):
        EfficientNetLite0().load(CPU)


# torch-fidelity's own numbers


def as_files(pixels, folder):
    folder.mkdir()
    for i, image in enumerate(pixels):
        rows = image.permute(1, 2, 0).numpy()
        Image.fromarray(rows[:, :, 0] if len(image) == 1 else rows).save(folder / f"{i:05d}.png")
    return str(folder)


def two_sets(tmp_path, shape, ours=70, real=64):
    """Pixels and files of two sets of images."""
    found = [images(ours, seed=1, shape=shape, low=60), images(real, seed=2, shape=shape)]
    return found, [as_files(p, tmp_path / str(i)) for i, p in enumerate(found)]


def assert_equal(ours, theirs, rel=1e-6):
    for name, theirs_name in EQUAL.items():
        value = pytest.approx(theirs[theirs_name], rel=rel, abs=1e-7)
        assert ours[name] == value, name


@pytest.mark.parametrize("channels", [1, 3])
def test_the_numbers_are_torch_fidelitys(tmp_path, channels):
    pixels, files = two_sets(tmp_path, (channels, 4, 5))
    theirs = torch_fidelity.calculate_metrics(
        input1=files[0],
        input2=files[1],
        feature_extractor="stub",
        kid_subset_size=64,
        **dict.fromkeys(("isc", "fid", "kid", "prc"), True),
        **dict.fromkeys(("cuda", "verbose", "cache"), False),
    )
    assert_equal(compute_scores(*(seen(STUB, p) for p in pixels)), theirs)


@pytest.mark.slow
def test_the_numbers_of_efficientnet_are_torch_fidelitys(tmp_path):
    pixels, files = two_sets(tmp_path, (3, 32, 32))
    theirs = torch_fidelity.calculate_metrics(
        input1=files[0],
        input2=files[1],
        feature_extractor="efficientnet-lite0",
        kid_subset_size=64,
        **dict.fromkeys(("isc", "fid", "kid", "prc"), True),
        **dict.fromkeys(("cuda", "verbose", "cache"), False),
    )
    extractor = EfficientNetLite0().load(CPU)
    assert_equal(compute_scores(*(seen(extractor, p) for p in pixels)), theirs, rel=1e-5)


def random_inception(path, monkeypatch):
    """A file of weights that fit, of a network that has learned nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: {})
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path="none"
        )
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
    torch.save(net.state_dict(), path)
    return str(path)


@pytest.mark.slow
def test_the_numbers_of_inception_are_those_of_torch_fidelitys_command(tmp_path, monkeypatch):
    weights = random_inception(tmp_path / "weights.pth", monkeypatch)
    pixels, files = two_sets(tmp_path, (3, 32, 32), ours=60, real=50)
    command = [sys.executable, "-m", "torch_fidelity.fidelity", "--cpu", "--json", "--silent"]
    command += ["--isc", "--fid", "--kid", "--prc", "--kid-subset-size", "50", "--no-cache"]
    # Without a name the command takes another network for precision and recall.
    command += ["--feature-extractor", "inception-v3-compat"]
    command += ["--feature-extractor-weights-path", weights]
    command += ["--input1", files[0], "--input2", files[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout[done.stdout.index("{") :])
    extractor = Inception(weights).load(CPU)
    assert_equal(compute_scores(*(seen(extractor, p) for p in pixels)), theirs, rel=1e-4)
