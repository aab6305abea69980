import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from idm_ray.condensation.teacher import Teacher
from idm_ray.errors import UserError
from idm_ray.evaluation import evaluate, evaluate_random, evaluate_whole, full_protocol
from idm_ray.evaluation.protocol import Evaluation
from idm_ray.evaluation.ranking import (
    Ranked,
    Ranking,
    Training,
    Weights,
    augmentation_robust_score,
    label_robust_score,
    rank,
)
from idm_ray.evaluation.references import reference
from idm_ray.runtime.streams import stream

SETTINGS = (
    "evaluate.augment=color_crop_cutout",
    "evaluate.cutmix=0.5",
    "evaluate.epochs=12",
    "evaluate.lr=0.1",
    "evaluate.whole_epochs=2",
)


def written_out(difference):
    """The normalised exponential as the paper prints it, in percent."""
    return 100 * (np.exp(difference) - np.exp(-1)) / (np.exp(1) - np.exp(-1))


@pytest.fixture
def condensed():
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return images, torch.arange(3).repeat_interleave(2)


def counting(told):
    """A watch that notes what is trained, once for each epoch of each net."""
    return lambda what, protocol: lambda repeat, epoch: told.append((what, repeat))


def made_up(condensed, random, whole, plain, plain_random, weights):
    """A ranking of accuracies in percent, one net each."""
    accuracies = {
        Training("condensed", True): condensed,
        Training("random", True): random,
        Training("whole", True): whole,
        Training("condensed", False): plain,
        Training("random", False): plain_random,
    }
    trained = {training: Evaluation((accuracy,), 1.0, 2) for training, accuracy in accuracies.items()}
    return Ranking(trained, True, weights)


@pytest.mark.parametrize(
    ("recovery", "improvement", "weight", "expected"),
    [
        (0.4, 0.2, 0.5, 22.8454),  # (e^-0.1 - e^-1) / (e - e^-1) = (0.904837 - 0.367879) / 2.350402
        (0.35, 0.15, 0.8, 29.0755),  # of e^0.05 = 1.051271
        (0.0, 0.0, 0.5, 26.8941),  # 1 / (1 + e)
        (0.0, 1.0, 0.5, 54.4946),  # of e^0.5 = 1.648721
        (1.0, 0.0, 0.5, 10.1536),  # of e^-0.5 = 0.606531
    ],
)
def test_the_label_robust_score_is_what_a_pocket_calculator_gives(recovery, improvement, weight, expected):
    assert label_robust_score(recovery, improvement, weight) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("augmented", "plain", "weight", "expected"),
    [
        (0.3, -0.1, 0.5, 31.3687),  # (e^0.1 - e^-1) / (e - e^-1) = (1.105171 - 0.367879) / 2.350402
        (0.3, -0.1, 0.0, 22.8454),
        (0.3, -0.1, 1.0, 41.7792),  # of e^0.3 = 1.349859
    ],
)
def test_the_augmentation_robust_score_is_what_a_pocket_calculator_gives(augmented, plain, weight, expected):
    assert augmentation_robust_score(augmented, plain, weight) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_scores_are_0_at_the_worst_and_100_at_the_best(weight):
    assert label_robust_score(1.0, -1.0, weight) == augmentation_robust_score(-1.0, -1.0, weight) == 0
    assert label_robust_score(-1.0, 1.0, weight) == augmentation_robust_score(1.0, 1.0, weight) == 100


def test_scores_rise_with_what_is_won_and_fall_with_what_is_lost():
    steps = np.linspace(-1, 1, 21)
    for other in steps:
        assert all(np.diff([label_robust_score(lost, other) for lost in steps]) < 0)
        assert all(np.diff([label_robust_score(other, won) for won in steps]) > 0)
        assert all(np.diff([augmentation_robust_score(other, won) for won in steps]) > 0)
        assert all(np.diff([augmentation_robust_score(won, other) for won in steps]) > 0)


def test_a_weight_of_1_looks_at_one_difference_only():
    assert label_robust_score(0.9, 0.2, 1.0) == label_robust_score(0.1, 0.2, 1.0)
    assert label_robust_score(0.2, 0.9, 0.0) == label_robust_score(0.2, 0.1, 0.0)
    assert augmentation_robust_score(0.2, 0.9, 1.0) == augmentation_robust_score(0.2, 0.1, 1.0)


def test_a_ranking_takes_percent_as_hundredths():
    found = made_up(60.0, 45.0, 85.0, 50.0, 48.0, Weights(0.25, 0.75))
    assert (found.recovery.mean, found.improvement.mean, found.plain_improvement.mean) == (25, 15, 2)
    assert found.label_robust.mean == pytest.approx(written_out(0.25 * 0.15 - 0.75 * 0.25))
    assert found.augmentation_robust.mean == pytest.approx(written_out(0.75 * 0.15 + 0.25 * 0.02))
    assert found.nets == 5
    assert found.label_robust.interval is None


@pytest.mark.parametrize(("label", "augmentation"), [(-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_weights_outside_0_to_1_are_refused(label, augmentation):
    with pytest.raises(UserError, match=r"must be 0 to 1; got (lambda|gamma)"):
        Weights(label, augmentation)


@pytest.mark.parametrize("partition", [1, 2])
def test_scores_are_those_of_nets_trained_one_by_one(
    small_config, small_data, cpu, condensed, tmp_path, partition
):
    config, data = small_config(*SETTINGS, f"condense.partition={partition}"), small_data()
    found = rank(Ranked(*condensed), full_protocol(config, data, cpu), Weights(0.3, 0.6), cache=tmp_path)

    plain = small_config(
        *SETTINGS, f"condense.partition={partition}", "evaluate.augment=none", "evaluate.cutmix=0"
    )
    with_draws, without = full_protocol(config, data, cpu), full_protocol(plain, data, cpu)
    own, bare = (np.array(evaluate(*condensed, partition, how).runs) for how in (with_draws, without))
    random, bare_random = (np.array(evaluate_random(how, 2).runs) for how in (with_draws, without))
    whole = np.array(evaluate_whole(with_draws).runs)
    assert found.recovery.runs == pytest.approx(whole - own)
    assert found.improvement.runs == pytest.approx(own - random)
    assert found.plain_improvement.runs == pytest.approx(bare - bare_random)
    label = written_out((0.3 * (own - random) - 0.7 * (whole - own)) / 100)
    augmentation = written_out((0.6 * (own - random) + 0.4 * (bare - bare_random)) / 100)
    assert found.label_robust.runs == pytest.approx(label)
    assert found.augmentation_robust.runs == pytest.approx(augmentation)
    assert found.label_robust.mean == pytest.approx(label.mean())
    assert found.label_robust.std == pytest.approx(label.std())
    assert found.nets == 10
    assert len({*own, *random, *whole, *bare, *bare_random}) > 3


def test_the_second_ranking_trains_nothing_and_one_that_was_cut_off_the_rest(
    small_config, small_data, cpu, condensed, tmp_path
):
    protocol = full_protocol(small_config(*SETTINGS), small_data(), cpu)
    first = rank(Ranked(*condensed), protocol, cache=tmp_path)
    told = []
    assert rank(Ranked(*condensed), protocol, watch=counting(told), cache=tmp_path) == first
    assert told == []

    files = sorted((tmp_path / "references").iterdir())
    assert [json.loads(file.read_text())["kind"] for file in files].count("condensed") == 4
    next(file for file in files if json.loads(file.read_text())["kind"] == "whole").unlink()
    assert rank(Ranked(*condensed), protocol, watch=counting(told), cache=tmp_path).recovery == first.recovery
    assert {what for what, _ in told} == {"the whole training part"}
    assert len({repeat for _, repeat in told}) == 1


def test_references_are_shared_with_other_evaluations(small_config, small_data, cpu, condensed, tmp_path):
    protocol = full_protocol(small_config(*SETTINGS), small_data(), cpu)
    known = {kind: reference(kind, protocol, tmp_path) for kind in ("random", "whole")}
    told = []
    found = rank(Ranked(*condensed), protocol, watch=counting(told), cache=tmp_path)
    assert {what for what, _ in told} == {
        "the set", "the set, not augmented", "random images, not augmented",
    }  # fmt: skip
    assert found.trained[Training("whole", True)] == known["whole"]
    assert found.trained[Training("random", True)] == known["random"]


@pytest.mark.parametrize("what", ["an image", "a label", "evaluate.expand"])
def test_another_set_is_not_taken_for_this_one(small_config, small_data, cpu, condensed, tmp_path, what):
    images, labels = condensed
    settings = (*SETTINGS, "condense.partition=2")
    rank(Ranked(images, labels), full_protocol(small_config(*settings), small_data(), cpu), cache=tmp_path)
    if what == "an image":
        images = images.clone()
        images[0, 0, 0, 0] += 1e-3
    elif what == "a label":
        labels = labels.clone()
        labels[0] = 2
    else:
        settings = (*settings, "evaluate.expand=false")
    told = []
    protocol = full_protocol(small_config(*settings), small_data(), cpu)
    rank(Ranked(images, labels), protocol, watch=counting(told), cache=tmp_path)
    assert {what for what, _ in told} == {"the set", "the set, not augmented"}


def test_a_protocol_that_augments_nothing_trains_nothing_twice(
    small_config, small_data, cpu, condensed, tmp_path
):
    config = small_config("evaluate.augment=none", "evaluate.whole_epochs=1")
    found = rank(Ranked(*condensed), full_protocol(config, small_data(), cpu), cache=tmp_path)
    assert (found.augmented, found.nets) == (False, 6)
    assert found.improvement == found.plain_improvement


SOFT = ("condense.labels=soft", "teacher.epochs=2", "condense.partition=2", *SETTINGS)


@pytest.fixture
def soft(small_config, small_data, cpu, condensed):
    """A set whose labels are a teacher's, and a protocol for it."""
    config, data = small_config(*SOFT), small_data()
    teacher = Teacher(config, data, cpu)
    return Ranked(*condensed, teacher.label(condensed[0]), teacher), full_protocol(config, data, cpu)


def test_soft_labels_are_judged_beside_random_images_of_the_same_teacher(
    small_config, small_data, cpu, soft, tmp_path
):
    ranked, protocol = soft
    found = rank(ranked, protocol, cache=tmp_path)
    assert found.nets == 12
    plain = full_protocol(
        small_config(*SOFT, "evaluate.augment=none", "evaluate.cutmix=0"), small_data(), cpu
    )
    classes = np.array(evaluate(ranked.images, ranked.labels, 2, protocol).runs)
    assert found.recovery.runs == pytest.approx(np.array(evaluate_whole(protocol).runs) - classes)
    for how, won in ((protocol, found.improvement), (plain, found.plain_improvement)):
        own = np.array(evaluate(ranked.images, ranked.teaching, 2, how).runs)
        assert won.runs == pytest.approx(own - random_images_as_taught(how, ranked.teacher))


def random_images_as_taught(protocol, teacher):
    """Accuracies on the published random images, labelled whole and trained on as if they were a set."""
    accuracies = []
    for repeat in protocol.repeats:
        generator = stream(protocol.config.seed, "random reference", repeat)
        images = protocol.data.train.images(protocol.data.train.sample_per_class(2, generator))
        seen = teacher.label(images, partition=1)
        accuracies += evaluate(images, seen, 1, replace(protocol, repeats=(repeat,))).runs
    return np.array(accuracies)


def test_random_images_of_another_teacher_or_of_none_are_other_references(
    small_config, small_data, cpu, soft, tmp_path
):
    ranked, protocol = soft
    rank(ranked, protocol, cache=tmp_path)
    told = []
    rank(ranked, protocol, watch=counting(told), cache=tmp_path)
    assert told == []
    for settings in ("teacher.epochs=1", "teacher.temperature=4"):
        other = replace(ranked, teacher=Teacher(small_config(*SOFT, settings), small_data(), cpu))
        rank(other, protocol, watch=counting(told), cache=tmp_path)
        assert {what for what, _ in told} == {
            "random images, soft labels", "random images, soft labels, not augmented",
        }  # fmt: skip
        told.clear()
    rank(replace(ranked, teacher=None), protocol, watch=counting(told), cache=tmp_path)
    assert {what for what, _ in told} == {"random images", "random images, not augmented"}


def test_a_teacher_is_not_trained_where_all_is_known(small_config, small_data, cpu, soft, tmp_path):
    ranked, protocol = soft
    rank(ranked, protocol, cache=tmp_path)
    told = []
    config = small_config(*SOFT)
    teacher = Teacher(config, small_data(), cpu, tell=lambda *how_far: told.append(how_far))
    rank(replace(ranked, teacher=teacher), protocol, cache=tmp_path)
    assert told == []


def test_too_few_real_images_are_refused_before_anything_is_trained(
    small_config, small_data, cpu, condensed, tmp_path
):
    protocol = full_protocol(small_config("condense.ipc=18"), small_data(), cpu)
    told = []
    with pytest.raises(UserError, match=r"ipc 18 training images of every class, but 'bee' has 17"):
        rank(Ranked(*condensed), protocol, watch=counting(told), cache=tmp_path)
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_one_net_has_scores_without_an_interval(small_config, small_data, cpu, condensed, tmp_path):
    protocol = replace(full_protocol(small_config(*SETTINGS), small_data(), cpu), repeats=(1,))
    found = rank(Ranked(*condensed), protocol, cache=tmp_path)
    assert found.augmentation_robust.interval is None
    both = rank(Ranked(*condensed), replace(protocol, repeats=(0, 1)), cache=tmp_path)
    assert both.augmentation_robust.runs[1:] == found.augmentation_robust.runs
