"""How much is measured: plain data, once for figures and once for a quick look."""

from dataclasses import dataclass

PARTS: dict[str, str] = {
    "a": "one iteration, by phase",
    "b": "evaluation",
    "c": "sweeps with a shared real side and without, and their memory",
    "d": "a sweep of one trial against the bare loop",
    "e": "a sweep with pruning and without",
    "f": "iteration time against classes, ipc and image size",
    "g": "what sweeps keep of their speed beside programs that keep every processor busy",
    "h": "the start of the commands, and how soon they refuse",
    "i": "building an image store of photographs, by one process and by all",
    "j": "the forecast of memory against what was measured",
    "k": "memory against classes and ipc, where images are large",
    "l": "what every method computes here, against the CPU in float64",
    "m": "how well a real side fills its workers, simulated",
    "n": "sweeps to which something happens, against a quiet one",
    "o": "one sweep of many tiny trials, and what grows with them",
    "p": "one long trial, and whether its processes hold more and more",
}
"""What can be measured."""

COUNTS = {
    "iterations": "timed iterations of each variant",
    "warmup": "iterations before those",
    "evaluations": "timed evaluations of each variant",
    "epochs": "of each net of an evaluation, at least 2",
    "repeats": "nets of an evaluation",
    "sweep_iterations": "of a trial in parts c, d and g",
    "faults": "sweeps of part n; given alone, nothing else is measured",
    "faults_before": "of the same series passed over, as an earlier run had them",
    "load": "trials of part o, given alone, nothing else is measured; part p has 20 times as many iterations",
}
WORK = {
    "batch_real": "real images per class in matching",
    "queue_batch": "real images in a step of a queued net",
    "train_steps": "K, steps of each trained net",
}
ALONE = {"faults": "n", "load": "o"}
"""Counts that name their part."""
LEAST = {"epochs": 2, "train_steps": 0, "load": 4, "faults_before": 0}
"""Of the numbers in `COUNTS` and `WORK`; 1 of the others."""

MOST_TRIALS = 16

PRECISIONS = ("fp32", "tf32", "bf16")
"""tf32: float32 whose convolutions and matrix products a CUDA device may round to TensorFloat32."""

MODES = {"eager": "off", "compiled": "on", "auto": "auto"}
"""Ways to run the product, as `compute.compile` names them; auto is what a long run gets by default."""


@dataclass(frozen=True)
class Work:
    """What an iteration costs beside S.

    Attributes:
        batch_real: real images per class in matching.
        queue_batch: real images in an optimiser step of a queued net.
        train_steps: K, steps of each of the 2 nets that are trained.
    """

    batch_real: int
    queue_batch: int
    train_steps: int


@dataclass(frozen=True)
class Large:
    """A size of S that part k measures.

    Attributes:
        classes: of random images.
        ipc: images per class.
        batch_real: real images per class in matching.
        hosted: whether a GPU gets its images batch by batch from the host, as those of a store that does not fit.
    """

    classes: int
    ipc: int
    batch_real: int
    hosted: bool = False


@dataclass(frozen=True)
class Amounts:
    """Sizes and repetitions.

    Attributes:
        iterations: timed iterations of every variant.
        warmup: iterations before those; the first one, with its compilation, is timed apart.
        evaluations: timed evaluations of every variant.
        epochs: of each net of an evaluation, at least 2.
        repeats: nets of an evaluation.
        work: of one iteration in parts that look at one setting.
        scaling_work: the same in the part that looks at many, on the CPU (`work` elsewhere).
        width: channels of the net.
        classes, ipc, size: of the base setting; `size` is the side of an image in pixels.
        per_class: random training images of a class.
        test: random test images.
        axes: what the scaling part varies, one at a time around the first values.
        matmul: side of the square matrices whose product gives the machine's limit.
        sweep_iterations: of every trial in parts that run whole sweeps.
        faults: sweeps to which something happens.
        faults_before: of the same series that are passed over.
        load: trials of the one sweep that has many; the long trial has 20 times as many iterations.
        sweep_trials: trials of those sweeps, one sweep after another.
        pruning_iterations: of every trial in the sweeps with and without pruning.
        pruning_trials: trials of those.
        pruning_seeds: root seeds of those, one pair of sweeps after another.
        photographs: of which a store is built.
        builds: of each store.
        forecasts: settings whose memory is forecast and measured: the side of an image in pixels, then what differs
            from `forecasts.BASE`.
        large_size: side of the images of part k.
        large: what it measures.
        correctness: sides of images, and widths of nets, of part l.
    """

    iterations: int
    warmup: int
    evaluations: int
    epochs: int
    repeats: int
    work: Work
    scaling_work: Work
    width: int
    classes: int
    ipc: int
    size: int
    per_class: int
    test: int
    axes: dict[str, tuple[int, ...]]
    matmul: int
    sweep_iterations: int
    faults: int
    faults_before: int
    load: int
    sweep_trials: tuple[int, ...]
    pruning_iterations: int
    pruning_trials: int
    pruning_seeds: tuple[int, ...]
    photographs: int
    builds: int
    forecasts: tuple[str, ...]
    large_size: int
    large: tuple[Large, ...]
    correctness: tuple[tuple[int, int], ...]


FULL = Amounts(
    iterations=5,
    warmup=2,
    evaluations=3,
    epochs=20,
    repeats=2,
    work=Work(batch_real=256, queue_batch=256, train_steps=10),
    scaling_work=Work(batch_real=8, queue_batch=16, train_steps=2),
    width=128,
    classes=10,
    ipc=10,
    size=32,
    per_class=5000,
    test=10_000,
    axes={"classes": (10, 50, 100, 200), "ipc": (1, 10, 50), "size": (32, 64, 224)},
    matmul=4096,
    sweep_iterations=30,
    faults=40,
    faults_before=0,
    load=1000,
    sweep_trials=(1, 2, 4, 8),
    pruning_iterations=200,
    pruning_trials=16,
    pruning_seeds=(0, 1, 2),
    photographs=3000,
    builds=3,
    forecasts=(
        "8 condense.ipc=10 condense.batch_real=64 compute.precision=fp32",
        "16 condense.ipc=10 condense.batch_real=64 compute.precision=bf16",
        "28 condense.method=dm condense.ipc=10 condense.batch_real=64 compute.precision=fp32",
        "32 condense.ipc=10 condense.batch_real=64 compute.precision=fp32",
        "32 condense.ipc=50 condense.batch_real=64 compute.precision=bf16",
        "32 condense.ipc=10 condense.partition=3 condense.batch_real=64 compute.precision=bf16 compute.chunk=32",
        "32 condense.loss=ncfm_sampled condense.ipc=10 condense.batch_real=64 compute.precision=fp32",
        "32 condense.method=cafe condense.ipc=10 condense.batch_real=64 compute.precision=fp32",
        "32 condense.method=dsa condense.ipc=10 condense.batch_real=16 compute.precision=fp32",
        "32 net.name=alexnet condense.ipc=10 condense.batch_real=64 compute.precision=bf16",
        "32 net.name=vgg11 condense.ipc=10 condense.batch_real=32 compute.precision=fp32",
        "32 net.name=resnet18 condense.ipc=1 condense.batch_real=16 compute.precision=fp32",
        "32 net.name=resnet18 condense.ipc=1 condense.batch_real=16 compute.precision=bf16 compute.chunk=8",
        "64 condense.ipc=1 condense.batch_real=16 compute.precision=bf16",
        "64 net.name=vgg11 condense.ipc=1 condense.batch_real=16 compute.precision=bf16",
        "128 condense.ipc=1 condense.batch_real=8 queue.batch=16 compute.precision=fp32 compute.chunk=8",
        "224 condense.ipc=1 condense.batch_real=8 queue.batch=16 queue.train_nets=1 compute.precision=bf16",
        "224 condense.method=dm condense.ipc=1 condense.batch_real=8 compute.precision=bf16 compute.chunk=4",
    ),
    large_size=224,
    large=(
        *(Large(classes, ipc, 8) for ipc in (1, 10) for classes in (10, 50, 100)),
        Large(10, 1, 128),
        Large(100, 1, 128),
    ),
    correctness=((32, 32), (224, 8)),
)

LARGE_ON_CUDA = (
    *(Large(100, ipc, batch) for batch in (128, 256) for ipc in (1, 10, 20)),
    Large(100, 10, 128, hosted=True),
)
"""What part k measures on a GPU."""
QUICK = Amounts(
    iterations=2,
    warmup=1,
    evaluations=1,
    epochs=2,
    repeats=1,
    work=Work(batch_real=8, queue_batch=8, train_steps=2),
    scaling_work=Work(batch_real=4, queue_batch=4, train_steps=1),
    width=8,
    classes=3,
    ipc=2,
    size=8,
    per_class=20,
    test=20,
    axes={"classes": (3, 4), "ipc": (1, 2), "size": (8, 16)},
    matmul=128,
    sweep_iterations=2,
    faults=1,
    faults_before=0,
    load=6,
    sweep_trials=(2,),
    pruning_iterations=10,
    pruning_trials=2,
    pruning_seeds=(0,),
    photographs=200,
    builds=1,
    forecasts=(
        "8 net.width=8 condense.ipc=1 condense.batch_real=4 compute.precision=fp32",
        "16 net.width=8 condense.method=dm condense.ipc=2 condense.batch_real=4 compute.precision=bf16 compute.chunk=4",
    ),
    large_size=64,
    large=(Large(2, 1, 4), Large(3, 2, 4)),
    correctness=((8, 4),),
)
