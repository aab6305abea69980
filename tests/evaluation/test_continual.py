import pytest
import torch

from idm_ray.condensation import condense
from idm_ray.errors import UserError
from idm_ray.evaluation import Memory, class_steps, evaluate, full_protocol, learn, over_seeds
from idm_ray.runtime.streams import stream


class Condense:
    """Condenses every step anew and remembers what it was shown."""

    def __init__(self, config, cpu):
        self.config, self.cpu, self.shown = config, cpu, []

    def memory(self, step, data):
        self.shown.append(data)
        run = condense(self.config, data, self.cpu)
        list(run)
        return Memory(run.images, run.labels)

    def evaluation(self, step, train):
        return train()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("classes", "steps"), [(10, 5), (100, 10), (100, 5), (10, 3), (3, 3), (7, 1)])
def test_an_order_is_the_seeds_permutation_cut_evenly(classes, steps, seed):
    parts = class_steps(classes, steps, seed)
    order = torch.randperm(classes, generator=stream(seed, "class order")).tolist()
    assert [label for part in parts for label in part] == order
    assert sorted(order) == list(range(classes))
    size, larger = divmod(classes, steps)
    assert [len(part) for part in parts] == [size + 1] * larger + [size] * (steps - larger)
    assert parts == class_steps(classes, steps, seed)


def test_seeds_give_different_orders():
    assert len({class_steps(100, 10, seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("steps", [0, 4])
def test_steps_that_do_not_fit_are_refused(steps):
    with pytest.raises(UserError, match=f"steps must be 1 to 3, the number of classes; got {steps}"):
        class_steps(3, steps, 0)


def test_a_step_condenses_its_own_classes_and_is_tried_on_all_so_far(small_config, small_data, cpu):
    config, data = small_config("condense.method=random"), small_data()
    learner = Condense(config, cpu)
    steps = list(learn(config, data, cpu, 2, learner))
    (first, second), order = class_steps(3, 2, 0), [label for part in class_steps(3, 2, 0) for label in part]
    assert [step.classes for step in steps] == [first, second]
    assert [step.seen for step in steps] == [2, 3]
    images = data.train.images(torch.arange(60))
    for shown, classes in zip(learner.shown, (first, second), strict=True):
        assert shown.class_names == tuple(data.class_names[label] for label in classes)
        for label, own in enumerate(classes):
            rows = torch.arange(*shown.train.offsets[label : label + 2])
            theirs = torch.arange(*data.train.offsets[own : own + 2])
            assert torch.equal(shown.train.images(rows), images[theirs])
    # The last step by hand: all memories, relabelled in the order of classes, on all test images.
    memories = [condense(config, data.of_classes(part), cpu) for part in (first, second)]
    for run in memories:
        list(run)
    labels = torch.cat([memories[0].labels, memories[1].labels + len(first)])
    own = full_protocol(config, data.of_classes(order), cpu)
    own = type(own)(own.config, own.data, own.judge, own.compute, own.epochs, (1,))
    expected = evaluate(torch.cat([run.images for run in memories]), labels, 1, own)
    assert steps[1].evaluation.runs == expected.runs


def test_one_step_is_the_whole_data_set(small_config, small_data, cpu):
    config, data = small_config("condense.method=random"), small_data()
    (step,) = learn(config, data, cpu, 1, Condense(config, cpu))
    assert step.seen == 3


def test_accuracy_by_step_is_over_seeds(small_config, small_data, cpu):
    runs = []
    for seed in (0, 1):
        config = small_config("condense.method=random", f"seed={seed}")
        runs.append(list(learn(config, small_data(), cpu, 3, Condense(config, cpu))))
    found = over_seeds(runs)
    assert len(found) == 3
    assert found[1].runs == (runs[0][1].evaluation.runs[0], runs[1][1].evaluation.runs[0])
