"""What the parts of a condensation hold of memory: tensors of nets by rehearsal, the rest by arithmetic."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import torch

from idm_ray.condensation import has_real_side
from idm_ray.condensation.distillation import images_of_step
from idm_ray.condensation.infinite_width import fully_connected_numbers
from idm_ray.condensation.objectives import Opposing, loss_of
from idm_ray.condensation.optimisers import optimiser_of
from idm_ray.condensation.random_features import random_features_numbers
from idm_ray.condensation.selection import training_epochs
from idm_ray.condensation.synthetic import classes_at_once
from idm_ray.condensation.teacher import teaching_net
from idm_ray.condensation.trajectory_matching import course, epochs_needed
from idm_ray.data import Outline
from idm_ray.data.raw import Shape
from idm_ray.data.sampling import keys_bytes
from idm_ray.evaluation.protocol import PARTS_BYTES, relabels
from idm_ray.evaluation.rehearsals import REHEARSALS
from idm_ray.nets import Shell, build_shell
from idm_ray.nets.footprint import Event, Footprint, Peak, footprint, in_turn
from idm_ray.runtime.compute import APART_BYTES, Bounds, Compute
from idm_ray.settings.effects import DIFFERENTIATED
from idm_ray.settings.sections import Config, NetConfig

WORKSPACES = {torch.bfloat16: 1.1, torch.float32: 1.8, torch.float64: 1.8}
"""What a process holds on a CUDA device for a byte of a footprint: holes, and what cuDNN works in. On an H200 1.0 was
seen in bfloat16, up to 1.7 in float32."""
SAVING_BYTES = 30 * 10**6
"""Of Arrow, Pillow and the like once they have saved a condensed set."""
SECOND = 3
"""Reserved for a byte of the tensors of IDC's second gradients. Convolutions on a CPU work in memory of their own:
1.1 to 1.9 were seen of 20 to 100 parts, and with 2 a trial of 40 parts took up to 1.3 of its forecast."""
FLOAT, DOUBLE = 4, 8
CHUNK, PRECISION = "compute.chunk", "compute.precision (bf16)"
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "evaluation": ("to train a net on S and judge it", ("evaluate.batch", PRECISION)),
    "saving": ("to save S", ("condense.ipc",)),
    "real": ("to match real images", (CHUNK, PRECISION)),
    "training": ("to train nets of the queue", ("queue.batch", PRECISION)),
    "synthetic": ("for the gradient in S", ("condense.ipc", "condense.partition", CHUNK)),
    "on real": ("to train the net on real images", ("queue.batch",)),
    "on set": ("to train the net on S", ("queue.batch",)),
    "statistics": ("for the statistics of batch norm", ("queue.batch", PRECISION)),
    "gradients": ("to match gradients", ("condense.ipc", CHUNK)),
    "student": ("to go back along a student", ("trajectory.batch_syn", CHUNK)),
    "experts": ("to train experts", ("queue.batch", PRECISION)),
    "kernels": ("for kernels of S and real images", ("condense.ipc", CHUNK)),
    "unrolled": ("to differentiate through training on S", ("unroll.truncate", CHUNK)),
    "choosing": ("to train the net that chooses", ("queue.batch", PRECISION)),
    "teaching": ("to train the teacher", ("queue.batch", PRECISION)),
}
"""What memory is for while it is held, in words, and the settings that would lower it."""


class Holdings:
    """The arithmetic of a forecast.

    Attributes:
        parts: bytes on top of what is kept, by what they are for.
        heap: bytes of the heap that serves all of them.
    """

    def __init__(self, config: Config, outline: Outline, compute: Compute):
        self._config, self._outline = config, outline
        self._shape, self._classes = outline.shape, outline.num_classes
        self._image = math.prod(outline.shape) * (8 if compute.storage == torch.float64 else FLOAT)
        self.set_bytes = outline.num_classes * config.condense.ipc * self._image
        self.chunk = compute.chunk(*outline.shape[1:])
        self.with_gradient = compute.with_gradient(*outline.shape[1:])
        self._compute = replace(compute, most=None)
        method = config.condense.method
        self._by_stages = method == "cafe"
        sizes = {"evaluation": self._evaluation, "saving": self._saving}
        if has_real_side(method):
            sizes |= {"real": self._real, "synthetic": self._synthetic}
            if config.queue.train_steps or config.queue.pretrain_epochs:
                sizes |= {"training": self._training}
        elif method == "cafe":
            sizes |= {"real": self._real, "synthetic": self._synthetic, "on set": self._training_on_set}
        elif method in ("dc", "dsa"):
            sizes |= {"gradients": self._gradients, "on set": self._training_on_set}
        elif method == "idc":
            sizes |= {"gradients": self._gradients_of_parts, "on real": self._training_on_real}
        elif method == "mtt":
            sizes |= {"student": self._student, "experts": self._experts}
        elif method == "kip":
            sizes |= {"kernels": self._kernels}
        elif method in DIFFERENTIATED:
            sizes |= {"unrolled": self._unrolled}
        elif training_epochs(config):
            sizes |= {"choosing": self._training}
        if config.condense.labels == "soft":
            sizes |= {"teaching": self._teaching}
        if self._shell.needs_statistics:
            sizes |= {"statistics": self._statistics}
        self._runs: list[tuple[Footprint, float]] = []
        self.parts = {PARTS[name][0]: size() for name, size in sizes.items()}
        self.heap = 0.0 if compute.device.type == "cuda" else in_turn(self._runs, APART_BYTES).heap

    @functools.cached_property
    def kept(self) -> float:
        """S, what its optimiser keeps, nets with theirs, and what opposes S."""
        nets = 6 + 2 * (self._config.evaluate.optimizer == "adamw")
        own = (1 + self._moments) * self.set_bytes + nets * self._shell.weights.nbytes
        return own + 2 * self._queue + self._opposing

    @property
    def _moments(self) -> int:
        """Numbers that the optimiser of S keeps of each pixel."""
        method = self._config.condense.method
        if method in DIFFERENTIATED:
            return 3
        of_its_own = has_real_side(method) or method in ("idc", "kip")
        return len(optimiser_of(self._config.condense, self._classes).moments) if of_its_own else 1

    @property
    def replayed(self) -> float:
        """What the replayed steps of the queue's nets keep to themselves on a CUDA device."""
        trains = has_real_side(self._config.condense.method) and self._config.queue.train_steps
        return self._training().apart if trains and self._compute.graphs else 0.0

    @functools.cached_property
    def _queue(self) -> float:
        """The weights of the nets that are kept."""
        queue, iterations = self._config.queue, self._config.condense.iterations
        nets = min(queue.max_nets, queue.initial + 1 + iterations // queue.push_every)
        return (nets if has_real_side(self._config.condense.method) else 1) * self._shell.weights.nbytes

    @functools.cached_property
    def _opposing(self) -> float:
        """What opposes S, and its velocity."""
        loss = loss_of(self._config)
        if not has_real_side(self._config.condense.method) or not isinstance(loss, Opposing):
            return 0.0
        return float(FLOAT * loss.opposing_numbers(self._width))

    def _saving(self) -> Peak:
        """S, its moments and one of them again; the queue's weights and velocities joined, and a copy of one.

        That of the other comes after. And what opposes S.
        """
        sizes = (self.set_bytes,) * (2 + self._moments) + (self._queue,) * 3 + (self._opposing / 2,) * 2
        events = tuple(Event(number, size, 0.0) for number, size in enumerate(sizes))
        return self._peak(Footprint(events), 0).beside(SAVING_BYTES)

    @functools.cached_property
    def _shell(self) -> Shell:
        return _shell(self._config.net, self._shape, self._classes, self._compute)

    def _of(self, what: str, images: float) -> Peak:
        """Bytes of a run over so many images."""
        run = _footprint(what, *_facts(what, self._config, self._outline, self._compute))
        return self._peak(run, images)

    def _peak(self, run: Footprint, images: float) -> Peak:
        if self._compute.device.type == "cuda":
            return Peak(0.0, WORKSPACES[self._compute.precision] * run.peak(images).apart)
        self._runs.append((run, images))
        return run.peak(images, APART_BYTES)

    def _real(self) -> Peak:
        most = sum(min(self._config.condense.batch_real, count) for count in self._outline.train)
        if not self._by_stages:
            loss = loss_of(self._config)
            held = loss.held_of_real(self._width, self._channels, min(self.chunk, most), most)
            what = "stages" if loss.by_stages else "forward"
            return self._of(what, min(self.chunk, most)).beside(FLOAT * held)
        asked = self._classes * self._config.cafe.query
        seen = _both(self._of("stages", min(self.chunk, most)), self._of("judge", min(self.chunk, asked)))
        return seen.beside(2 * self._stage_means)

    def _statistics(self) -> Peak:
        return self._of("judge", self._config.queue.batch)

    def _training(self) -> Peak:
        queue, images = self._config.queue, sum(self._outline.train)
        drawn = queue.train_steps * (queue.train_nets if queue.train == "drawn" else 1)
        keys = keys_bytes(drawn, images) if self._compute.device.type == "cuda" else 0
        return self._of("step", queue.batch).beside(keys)

    def _teaching(self) -> Peak:
        """A step of the teacher, and its look at images; its weights, what they were and what it keeps of its steps."""
        step = self._of_teacher("step", self._config.queue.batch)
        look = self._of_teacher("judge", self._judged)
        return _both(step, look).beside(3 * self._teachers_bytes)

    def _of_teacher(self, what: str, images: float) -> Peak:
        config = self._config.model_copy(update={"net": teaching_net(self._config)})
        run = _footprint(what, *_facts(what, config, self._outline, self._compute))
        return self._peak(run, images)

    @property
    def _teachers_bytes(self) -> int:
        net = teaching_net(self._config)
        return _shell(net, self._shape, self._classes, self._compute).weights.nbytes

    @property
    def _judged(self) -> int:
        """Images that a teacher judges at a time."""
        settings, select = self._config.condense, self._config.select
        crops = select.candidates * select.crops if settings.method == "rded" else 0
        return min(self.chunk, max(self._classes * settings.ipc * settings.partition**2, crops))

    def _training_on_set(self) -> Peak:
        images = self._classes * self._config.condense.ipc
        what = "step" if self._by_stages else "plain step"
        return self._of(what, min(self._config.queue.batch, images)).beside(self.set_bytes)

    def _training_on_real(self) -> Peak:
        return self._of("plain step", self._config.queue.batch)

    def _synthetic(self) -> Peak:
        """Clamped pixels are normalised anew for each step; those of Adam are divided and multiplied."""
        settings = self._config.condense
        more = (settings.pixels == "clamped") + 2 * (settings.optimizer != "sgd")
        return self._stepped().beside(more * self.set_bytes if has_real_side(settings.method) else 0.0)

    def _stepped(self) -> Peak:
        settings = self._config.condense
        each = settings.partition**2
        images = self._classes * settings.ipc
        what = "slope of stages" if self._by_stages or loss_of(self._config).by_stages else "slope"
        if images * each <= self.with_gradient:
            return self._of(what, images).beside(2 * self.set_bytes + self._held(self._classes))
        if self._by_stages:  # class by class; means of both sides, and slopes
            at_once = settings.ipc * max(1, self.chunk // settings.ipc)
            return self._of(what, min(at_once, images)).beside(self.set_bytes + 4 * self._stage_means)
        if settings.ipc * each <= self.with_gradient:  # some whole classes
            bounds = Bounds(self.chunk, self.with_gradient)
            classes = classes_at_once(settings, bounds, self._classes)
            at_once = settings.ipc * classes
            return self._of(what, at_once).beside(2 * at_once * self._image + self._held(classes))
        outputs = 2 * settings.ipc * each * self._features * FLOAT  # of a class, in two passes
        at_once = min(max(1, self.chunk // each), settings.ipc)
        return self._of(what, at_once).beside(settings.ipc * self._image + 2 * outputs + self._held(1))

    def _gradients(self) -> Peak:
        settings = self._config.condense
        real = self._of("gradient", min(settings.batch_real, self.with_gradient))
        second = self._of("second", settings.ipc)
        return _both(real, second).beside(self.set_bytes)

    def _gradients_of_parts(self) -> Peak:
        """All parts of a class are made, of which some go through the net."""
        settings = self._config.condense
        parts = settings.ipc * settings.partition**2
        real = self._of("gradient", min(settings.batch_real, self.with_gradient))
        second = self._of("second", SECOND * min(parts, self._config.gradient.most_parts))
        return _both(real, second.beside(2 * parts * self._image)).beside(2 * self.set_bytes)

    def _student(self) -> Peak:
        """One step's graph, and the weights before every step."""
        images = self._classes * self._config.condense.ipc
        batch = min(self._config.trajectory.batch_syn or images, images)
        at_once = batch if self._shell.needs_statistics else min(batch, self.with_gradient)
        steps = course(self._config.trajectory, self._config.condense.ipc).syn_steps
        kept = steps * self._shell.weights.nbytes + self.set_bytes
        return self._of("back", at_once).beside(kept + self._trajectory)

    def _experts(self) -> Peak:
        """An expert's training; its weights after each epoch, and once more while they are saved."""
        return self._of("step", self._config.queue.batch).beside(2 * self._trajectory)

    @property
    def _trajectory(self) -> float:
        """An expert's weights after each epoch, which are in the memory of the CPU."""
        if self._compute.device.type == "cuda":
            return 0.0
        epochs = epochs_needed(self._config.trajectory, self._config.condense.ipc)
        return float((epochs + 1) * self._shell.weights.nbytes)

    def _kernels(self) -> Peak:
        settings, kernel = self._config.condense, self._config.kernel
        images = self._classes * settings.ipc
        real = sum(min(settings.batch_real, count) for count in self._outline.train)
        if kernel.name != "features":
            pixels, at_once = math.prod(self._shape), min(self.chunk, real)
            held = fully_connected_numbers(images, at_once, pixels, kernel.depth)
            return Peak(0.0, DOUBLE * held).beside(self.set_bytes)
        at_once = images if images <= self.with_gradient else min(self.chunk, self.with_gradient)
        run = _both(self._of("forward", min(self.chunk, real)), self._of("slope", at_once))
        held = random_features_numbers(images, min(self.chunk, real), self._width, kernel.nets)
        nets = kernel.nets * self._shell.weights.nbytes
        return run.beside(DOUBLE * held + nets + 2 * self.set_bytes)

    def _unrolled(self) -> Peak:
        """The weights before each step that is differentiated through, and the gradient in S."""
        settings, unrolled = self._config.condense, self._config.unroll
        taken = unrolled.steps * unrolled.epochs
        steps = min(taken, unrolled.truncate or taken)
        most = sum(min(settings.batch_real, count) for count in self._outline.train)
        real = self._of("gradient", min(self.chunk, most))
        each = images_of_step(unrolled, settings.ipc, self._classes)
        second = self._of("unrolled", min(self.chunk, each))
        return _both(real, second).beside(2 * self.set_bytes + steps * self._shell.weights.nbytes)

    def _evaluation(self) -> Peak:
        settings, judge = self._config.evaluate, max(sum(self._outline.validation), sum(self._outline.test))
        each = self._config.condense.partition**2 if settings.expand else 1
        parts = self._classes * self._config.condense.ipc * each
        kept = parts * self._image if each > 1 and parts * self._image <= PARTS_BYTES else 0
        steps = self._of("step", min(settings.batch, parts))
        judged = self._of("judge", min(self.chunk, judge))
        if relabels(self._config):  # a view's batch and its labels come before the step on it
            batch = min(settings.batch, parts)
            view = self._of_teacher("judge", min(batch, self.chunk)).beside(2 * batch * self._image)
            judged = _both(judged, view).beside(self._teachers_bytes)
            steps = steps.beside(self._teachers_bytes)
        # Replayed steps keep what they take while nets are judged.
        both = judged.beside(steps.apart) if self._compute.graphs else _both(steps, judged)
        return both.beside(self.set_bytes + 2 * kept)

    @functools.cached_property
    def _stage_means(self) -> float:
        """Of all classes in every stage."""
        with torch.no_grad():
            stages = self._shell.stages(torch.zeros(2, *self._shape))
        return float(self._classes * FLOAT * sum(stage.shape[1] for stage in stages))

    def _held(self, classes: int) -> float:
        """By the loss of so many classes at a time."""
        settings, loss = self._config.condense, loss_of(self._config)
        if self._by_stages:
            return 0.0
        matched = min(settings.batch_real, settings.easiest or settings.batch_real)
        images = min(matched, max(self._outline.train))
        parts = settings.ipc * settings.partition**2
        return FLOAT * loss.held_of_own(self._width, self._channels, classes, images, parts)

    @property
    def _width(self) -> int:
        """Features of the net."""
        return self._shell.net.classifier.in_features

    @property
    def _channels(self) -> int:
        """See `Net`."""
        return self._shell.net.channels

    @property
    def _features(self) -> int:
        return self._width + self._classes


def _both(one: Peak, other: Peak) -> Peak:
    """Of what comes after one another."""
    return Peak(max(one.heap, other.heap), max(one.apart, other.apart))


Facts = tuple[NetConfig, Shape, int, Compute, int, str]
"""All that a rehearsal depends on: net, shape, classes, compute, l and the augmentation."""


def rehearsal(what: str, config: Config, outline: Outline, compute: Compute) -> Callable[[int], object]:
    """One of `REHEARSALS`, as a condensation by a config would run it; takes a number of images."""
    net, shape, classes, compute, partition, strategy = _facts(what, config, outline, compute)
    shell = _shell(net, shape, classes, replace(compute, compile=False))
    return functools.partial(REHEARSALS[what], shell, shape, partition, strategy)


def _facts(what: str, config: Config, outline: Outline, compute: Compute) -> Facts:
    compute = replace(compute, most=None)
    if what in ("gradient", "second", "plain step", "back", "unrolled"):
        compute = replace(compute, precision=compute.storage, compile=False, fused=False)
    partition = config.condense.partition if what.startswith("slope") else 1
    return config.net, outline.shape, outline.num_classes, compute, partition, config.condense.augment


@functools.lru_cache(maxsize=8)
def _shell(net: NetConfig, shape: Shape, classes: int, compute: Compute) -> Shell:
    shell = build_shell(net, shape, classes, replace(compute, device=torch.device("cpu"), graphs=False))
    shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
    return shell


@functools.lru_cache(maxsize=64)
def _footprint(
    what: str, net: NetConfig, shape: Shape, classes: int, compute: Compute, partition: int, strategy: str
) -> Footprint:
    shell = _shell(net, shape, classes, replace(compute, compile=False))
    return footprint(functools.partial(REHEARSALS[what], shell, shape, partition, strategy))
