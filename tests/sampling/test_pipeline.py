"""The same images whatever the batches, and after a kill; other samples are left alone."""

from pathlib import Path

import pytest

from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling import pipeline
from energy_at.sampling.samples import Parts, SamplingBar
from tests.helpers.running import everything
from tests.helpers.samples import BARE, report, same, sampled_columns


def test_the_images_depend_on_no_batch_size_and_no_number_of_images(
    digits_run, type_sample, without_figures
):
    wide = sampled_columns(type_sample, "wide", "n=23")
    narrow = sampled_columns(type_sample, "narrow", "n=23", "batch_size=1")
    assert same(wide, narrow)
    more = sampled_columns(type_sample, "more", "n=29", "batch_size=7")
    first = {name: column[:23] for name, column in more.items() if name != "key"}
    assert same(first, {name: column for name, column in wide.items() if name != "key"})
    other = sampled_columns(type_sample, "other", "n=23", "seed=1")
    assert bool((other["pixels"] != wide["pixels"]).any(axis=(1, 2, 3)).all())


class Tired(SamplingBar):
    """Ctrl-C after the second group of samples."""

    finishes = 0

    def count(self, samples):
        super().count(samples)
        type(self).finishes += 1
        if self.finishes == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["parts", "the last moment"])
def test_what_was_cut_off_resumes(digits_run, type_sample, monkeypatch, without_figures, every):
    overrides = ("n=23", "batch_size=6", "guidance.tolerance=1")
    expected = sampled_columns(type_sample, "whole", *overrides)
    monkeypatch.setattr(Parts, "EVERY", every)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "SamplingBar", Tired)
        patch.setattr(Tired, "finishes", 0)
        code, _, err = type_sample("run=run", "out=again", *BARE, *overrides)
    assert (code, "re-run the same command to resume" in err) == (130, True)
    kept = Parts(ResultFolder(Path("again"), "sampling", str(expected["key"]))).done
    assert 0 < len(kept) < 23
    numbers = []
    of = pipeline.Samples.of
    monkeypatch.setattr(
        pipeline.Samples, "of", lambda chains: numbers.extend(chains.number.tolist()) or of(chains)
    )
    assert same(sampled_columns(type_sample, "again", *overrides), expected)
    assert sorted(numbers) == sorted(set(range(23)) - kept)
    assert report("again")["of_earlier_attempts"] == len(kept)
    assert not Path("again/parts").exists()


@pytest.mark.slow
def test_a_folder_of_other_samples_is_refused_and_kept(digits_run, type_sample, without_figures):
    sampled_columns(type_sample, "made", "n=3")
    before = everything("made")
    for change in ("n=4", "seed=1", "start.scale=2", "sampler.noise=0", "guidance=none"):
        code, _, err = type_sample("run=run", "out=made", *BARE, "n=3", change)
        assert code == 1
        assert err == "error: made holds another sampling: choose another out=FOLDER\n"
    assert everything("made") == before


def test_damaged_samples_are_refused(digits_run, type_sample, without_figures):
    sampled_columns(type_sample, "made", "n=3")
    Path("made/samples.npz").write_bytes(b"PK")
    code, _, err = type_sample("run=run", "out=made", "n=3", *BARE)
    assert code == 1
    assert err.startswith("error: made/samples.npz is damaged: remove it")
