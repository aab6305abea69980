"""What a user may set: frozen, checked once on entry (`idm_ray.settings.layers`), read by name afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from idm_ray.errors import brief
from idm_ray.settings.effects import (
    DIFFERENTIATED,
    FIXED,
    LEARN_LABELS,
    READ_BY,
    READ_BY_TEACHERS,
    WHOLE_LOSSES,
    ignores,
    method_of,
)
from idm_ray.settings.locations import Address, Location, Source, listed
from idm_ray.settings.presets import DSA, EVALUATE_PRESETS, FRESH, METHOD_PRESETS, NETS, PRESETS, STAYING
from idm_ray.settings.subsets import check_subset

OPERATIONS = tuple(DSA.split("_"))
IMAGENET_SIZE = 224
Raw = dict[str, Any]
MOST, MOST_SEARCHED = 2**63 - 1, 2**53
"""Of a whole number; and of one that is searched, which the study keeps as a double."""
LEAST_SHARE = 0.01
"""Of a GPU, or of a CPU: Ray counts no less than a ten-thousandth, and nothing so small is a machine to run on."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if isinstance(value, int) and abs(value) > MOST:
                raise ValueError(f"{key} must be within 64 bits, at most {MOST}; got {brief(value)}")
        return given


class DatasetConfig(Section):
    """Which images to condense."""

    name: Literal[
        "digits",
        "mnist",
        "fashion_mnist",
        "svhn",
        "cifar10",
        "cifar100",
        "parquet",
        "folder",
        "tiny_imagenet",
        "imagenet",
    ] = "digits"
    """Where the images come from; docs/data.md describes each source."""
    root: Location | None = None
    """Folder that holds the files, or a URI that pyarrow opens, such as s3://bucket/imagenet, which is copied into the
    cache once; null lets torchvision's sets be downloaded there."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of each class that is held out of training to select on."""
    subset: str | None = None
    """Which classes of `imagenet`, in which order: the name of a list in docs/data.md, such as imagenette, or a file
    of WordNet ids, one a line; null: all."""
    image_size: int | None = Field(None, ge=4)
    """Side in pixels to which images of `folder` and `imagenet` (null: 224) are resized and centre-cropped; other
    sources have their own."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Images that cannot be decoded: refuse ends with a list of them, skip leaves them out and counts them."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean in 0..1; null takes the published constant or computes it on the training part."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation in 0..1, like `mean`."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: Path | str | None) -> Path | str | None:
        """Trials, and whoever resumes, may stand elsewhere."""
        try:
            return root.expanduser().absolute() if isinstance(root, Path) else root
        except RuntimeError as error:  # ~ and a name that nobody here has
            raise ValueError(str(error)) from None

    @property
    def folder(self) -> Path | None:
        """`root` on a disk; what is behind a URI is copied before anyone asks."""
        assert not isinstance(self.root, str), "a URI is no folder"
        return self.root

    @field_validator("subset")
    @classmethod
    def _known(cls, subset: str | None) -> str | None:
        return None if subset is None else check_subset(subset)

    @model_validator(mode="after")
    def _of_imagenet(self) -> "DatasetConfig":
        if self.subset is not None and self.name != "imagenet":
            raise ValueError(
                f"dataset.subset is for the source imagenet, {self.name} has no subsets; got {self.subset}; "
                "set dataset.name=imagenet or dataset.subset=null"
            )
        return self

    @property
    def side(self) -> int | None:
        """`image_size`, or what the source takes without one; None where the files decide."""
        return IMAGENET_SIZE if self.name == "imagenet" and self.image_size is None else self.image_size


class NetConfig(Section):
    """The network that gives features and logits."""

    name: Literal["convnet", "alexnet", "vgg11", "resnet18", "lenet", "mlp"] = "convnet"
    """The architecture; docs/networks.md describes each."""
    width: int | None = Field(None, ge=1, le=4096)
    """Channels of the first layer (convnet, mlp: of every layer), the others in proportion; null: as published
    (128 for convnet, alexnet and mlp, 64 for vgg11 and resnet18, 6 for lenet)."""
    depth: int | None = Field(None, ge=1)
    """Blocks of convnet; null follows the image size (3 for 32 pixels, 4 for 64, 6 for 224). Hidden layers of mlp;
    null: 2."""
    norm: Literal["instance", "batch", "group", "layer", "none"] | None = None
    """Of convnet, vgg11 and resnet18 (null: instance) and alexnet (null: none)."""
    activation: Literal["relu", "leaky_relu", "sigmoid", "swish"] | None = None
    """null: relu."""
    pooling: Literal["average", "max"] | None = None
    """Of convnet (null: average), alexnet, vgg11 and lenet (null: max)."""

    @model_validator(mode="after")
    def _applicable(self) -> "NetConfig":
        published = NETS[self.name]
        for key, value in self.model_dump(exclude={"name"}).items():
            if value is not None and key not in published:
                raise ValueError(
                    f"net.{key} does not apply to {self.name}, which has {', '.join(published)}; set net.{key}=null"
                )
        return self


def _check_augment(value: str) -> str:
    if value != "none" and not set(value.replace("+", "_").split("_")) <= set(OPERATIONS):
        raise ValueError(
            "must be none or operations joined by _ (one of them) or + (one after another), of "
            f"{', '.join(OPERATIONS)}; got {brief(value)}"
        )
    return value


class CondenseConfig(Section):
    """How the condensed set S is made."""

    method: Literal[
        "idm",
        "dm",
        "dc",
        "dsa",
        "idc",
        "cafe",
        "dd",
        "ld",
        "mtt",
        "kip",
        "random",
        "herding",
        "kcenter",
        "forgetting",
        "rded",
    ] = "idm"
    """How S is made; docs/methods.md describes each. Naming another one also takes its default preset."""
    preset: Literal[
        "official",
        "official_ipc1",
        "paper",
        "dm",
        "dc",
        "dsa",
        "idc",
        "cafe",
        "cafe_dsa",
        "dd",
        "ld",
        "mtt",
        "kip",
        "rfad",
        "random",
        "herding",
        "kcenter",
        "forgetting",
        "rded",
        "ncfm",
        "ncfm_sampled",
        "dance",
        "m3d",
        "iid",
        "dsdm",
        "datadam",
    ] = "official"
    """A named reading of the method: sets all that was published for it. What is set beside it or later wins."""
    loss: Literal["mean", "ncfm", "ncfm_sampled", "mmd", "mean_cov", "attention", "iid"] = "mean"
    """What of a class's features idm and dm match: their mean (as published), their characteristic function (as NCFM;
    sampled: where its sampling network says), their mean embedding by Gaussian kernels (as M3D), their mean and
    covariance (as DSDM), attention maps (as DataDAM), or their mean and the covariance of channels (as IID); see
    `loss`."""
    ipc: int = Field(10, ge=1)
    """Synthetic images per class."""
    iterations: int = Field(20_000, ge=0)
    """Steps on S."""
    partition: int = Field(2, ge=1)
    """l: every synthetic image is split into l x l parts (section 4.1)."""
    lambda_reg: float = Field(50.0, ge=0)
    """Weight of accuracy * cross-entropy (equation 5); the accuracy is in 0..1."""
    lr: float = Field(0.2, gt=0)
    """Learning rate of S, in the units of `pixels`."""
    momentum: float = Field(0.5, ge=0, lt=1)
    """Of the steps on S by sgd; of dd and ld, which step by Adam, its first beta."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Of S in idm, dm, idc and kip; dd and ld step by Adam, others by sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the steps on S by adamw: times the learning rate, the share of itself that every pixel loses."""
    pixels: Literal["normalised", "clamped"] = "normalised"
    """What is stepped: normalised images, without bounds (DC to IDM), or pixel values, kept in 0..1 (NCFM, DANCE,
    IDC)."""
    patience: int = Field(0, ge=0)
    """Iterations without a lower loss that are borne before the learning rate of S is halved; 0: it never is."""
    calibration: float = Field(0.0, ge=0)
    """Weight of the cross-entropy of S under the trained net, lowered by a step of its own after each one that matches
    (NCFM, DANCE: 1); 0: there is no such step. Where nets are not blended, that is the matched net."""
    batch_real: int = Field(256, ge=1)
    """Real images per class in one matching step; a smaller class gives all it has."""
    easiest: int = Field(0, ge=0)
    """Of these real images, those that are matched: as many of each class as this, of lowest cross-entropy under the
    matched net; 0: all."""
    regularise: Literal["all", "misclassified"] = "all"
    """Synthetic parts whose cross-entropy counts: all, or those that the matched net takes for another class."""
    init: Literal["real", "mosaic", "crops", "noise"] = "mosaic"
    """Start of S: real images, l x l whole images downscaled, l x l crops, or noise."""
    stepping: Literal["per_class", "joint"] = "per_class"
    """One joint step an iteration, or the published loop that steps S once per class (in closed form)."""
    labels: Literal["hard", "soft", "learned"] = "hard"
    """What nets are taught about S: the class that an image was made for, what a teacher sees in each of its parts (see
    `teacher`), or what the method has learnt (ld, and dd and kip beside pixels)."""
    augment: str = DSA
    """DSA operations of the matching step, joined by _, one of them drawn per class and iteration; of those joined by +
    all are taken, one after another (IDC); none for no DSA. Methods that train nets on S or for selection augment there
    too. For digits, mnist and svhn without flip unless set."""

    _augment = field_validator("augment")(_check_augment)


class LossConfig(Section):
    """The loss that `condense.loss` names."""

    weight: float | None = Field(None, gt=0)
    """Of the matching loss beside the cross-entropy; null: as published, 300 for ncfm and ncfm_sampled, 100 for
    attention, 1 for others."""
    frequencies: int = Field(4096, ge=1)
    """Of ncfm, drawn anew for each iteration; ncfm_sampled makes a sixteenth as many, each of which is 16 times in the
    authors' program, and 2 at least."""
    amplitude: float = Field(0.5, ge=0, lt=1)
    """Of ncfm and ncfm_sampled: weight of the difference in amplitude; that in phase has the rest."""
    ascent: float = Field(0.001, ge=0)
    """Of ncfm_sampled: learning rate of the net that makes frequencies, by SGD with momentum 0.5, which raises the loss
    after each step on S; 0: it stays as it was drawn, as that of the authors' program does."""
    covariance: float | None = Field(None, ge=0)
    """Of mean_cov: weight of the covariances' distance, divided by the number of features; of iid that of the channels'
    covariances. null: as published, 50 and 0.03 (iid beside DM: 0.01)."""
    history: float = Field(0.2, ge=0)
    """Of mean_cov: weight of the distance of a class's synthetic mean from a running mean of what it was (0.99 of which
    stays in an iteration), divided by the number of features; from iteration 2,000 on, as published."""
    centring: float = Field(0.01, ge=0)
    """Of iid: weight of the squared distances of synthetic features from their mean in a class. Published: 0.01, and
    0.05 beside DM."""
    power: float = Field(4.0, ge=1)
    """Of attention: p, to which activations are raised. Published: 4; the authors' program takes 1."""
    logits: float = Field(0.01, ge=0)
    """Of attention: weight of the distance of the mean logits. Published: 0.01, and 0.02 above 64 pixels."""


class QueueConfig(Section):
    """Nets that are trained during condensation: the model queue (section 4.2), and how other methods train theirs."""

    source: Literal["queue", "fresh", "pretrained", "blend"] = "queue"
    """The net that is matched: one of the queue (IDM), a new one each time (DM), one of `max_nets` that are trained for
    `pretrain_epochs` and then stay as they are, or a blend of one of the queue with what it was when it was made, in
    random proportion (NCFM, DANCE). fresh and pretrained set what else there is to say of a queue."""
    max_nets: int = Field(100, ge=1)
    """N_max: the oldest net is popped when there are more."""
    train_steps: int = Field(10, ge=0)
    """K: optimiser steps that a net takes when it is trained."""
    train_nets: int = Field(2, ge=0)
    """Nets trained per iteration when `train` is drawn."""
    push_every: int = Field(30, ge=1)
    """A new net is pushed at iterations 0, push_every, 2 push_every, ..."""
    initial: int = Field(3, ge=0)
    """Nets before iteration 0 pushes its own."""
    batch: int = Field(256, ge=1)
    """Real images in an optimiser step of a net."""
    lr: float = Field(0.01, gt=0)
    """Learning rate of the nets."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of the nets' steps."""
    weight_decay: float = Field(5e-4, ge=0)
    """Of the nets' steps."""
    pretrain_epochs: int = Field(0, ge=0)
    """Epochs over the training part that a net is trained for when it is pushed (figure 3)."""
    train: Literal["drawn", "sampled"] = "drawn"
    """Which nets are trained: `train_nets` drawn from the whole queue, the matched one possible, or that one alone."""
    accuracy: Literal["training", "matching"] = "training"
    """The net's accuracy: over all batches that trained it (0 before), or on this step's real images, not augmented."""
    reset_accuracy_every: int = Field(0, ge=0)
    """Iterations after which all running accuracies start anew, as the authors' evaluations do; 0: never."""

    @model_validator(mode="before")
    @classmethod
    def _of_source(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("source") == "fresh":
            return {**given, **FRESH}
        if given.get("source") == "pretrained":
            nets = given.get("max_nets", cls.model_fields["max_nets"].default)
            return {**given, **STAYING, **({"initial": max(0, nets - 1)} if isinstance(nets, int) else {})}
        return given

    @model_validator(mode="after")
    def _pretrained(self) -> "QueueConfig":
        if self.source == "pretrained" and not self.pretrain_epochs:
            raise ValueError(
                "queue.pretrain_epochs must be at least 1 where queue.source is pretrained; got 0; set it, or "
                "queue.source=fresh for nets that are never trained"
            )
        return self


class GradientConfig(Section):
    """Gradient matching (methods dc, dsa and idc)."""

    outer: int | None = Field(None, ge=1)
    """Steps on S for a net; null: as published, 100 for idc, of dc and dsa for the ipc nearest to ours."""
    inner: int | None = Field(None, ge=1)
    """Epochs on S that the net is trained for between two of them; null likewise. The net of idc takes
    `queue.train_steps` on real images instead."""
    distance: Literal["squared", "absolute"] = "squared"
    """Of idc: squared or absolute differences of gradients, summed. Published: squared for CIFAR and SVHN, absolute for
    MNIST, FashionMNIST and ImageNet, each with a learning rate of its own."""
    cutmix: float = Field(0.5, ge=0, le=1)
    """Of idc: probability that the images of a batch that trains the net get a box of others, and their labels a share
    of theirs; where it is not 0 that augments without cutout."""
    most_parts: int = Field(128, ge=1)
    """Of idc: parts of a class's images that are matched in a step, at most; of more, as many are drawn."""


class CafeConfig(Section):
    """Feature alignment (method cafe)."""

    layer_weights: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0, 1.0, 1.0, 0.1, 0.1)
    """Of the distances of class means: of the features, once more as the last stage's output, then of stages before
    their pooling, from the deepest to the first."""
    discrimination: float = Field(0.01, ge=0)
    """Weight of the cross-entropy of real features against synthetic class means."""
    outer_range: float = Field(0.04, ge=0, le=1)
    """lambda_1: a net is done when its last `window` query accuracies (0..1) lie within this."""
    inner_range: float = Field(0.03, ge=0, le=1)
    """lambda_2: training on S pauses when the last `window` query accuracies differ by more than this."""
    window: int = Field(10, ge=2)
    """Query accuracies that the two ranges look at."""
    query: int = Field(128, ge=1)
    """Training images per class that an accuracy is measured on."""
    most_steps: int = Field(50, ge=1)
    """Steps on S for a net, at most."""
    most_epochs: int = Field(50, ge=1)
    """Epochs on S between two of them, at most."""


class TrajectoryConfig(Section):
    """Trajectory matching (method mtt)."""

    experts: int = Field(100, ge=1)
    """Nets that are trained on real images, as `queue` says, and kept with their weights after each epoch. Only those
    are trained that some iteration draws."""
    train_epochs: int | None = Field(None, ge=1)
    """Epochs that each is trained for; null: as many as are needed. Trials that are to share experts have the same
    number. Published: 50, of which the last are not used."""
    expert_epochs: int = Field(2, ge=1)
    """Epochs between an expert's weights that a student starts from and those that it shall reach. Published: 2, and 3
    for CIFAR-100 with one image per class."""
    max_start_epoch: int | None = Field(None, ge=1)
    """A student starts from an expert's weights after 0 to `max_start_epoch` - 1 epochs; null: as published for the ipc
    nearest to ours, within `train_epochs`."""
    syn_steps: int | None = Field(None, ge=1)
    """Steps of a student along S; null: as published for the ipc nearest to ours."""
    batch_syn: int | None = Field(None, ge=1)
    """Images of S in each of them; null: all."""
    lr: float | None = Field(None, gt=0)
    """Learning rate of the student at first, which then is learnt; null: as published for the ipc nearest to ours."""
    lr_lr: float | None = Field(None, ge=0)
    """Learning rate of that learning rate, with `condense.momentum`; 0: it stays; null: as published likewise."""
    gradient: Literal["exact", "tesla"] = "exact"
    """exact: through all steps of the student; tesla: the weights of each step are taken for constants (TESLA), which
    is a little less work, and exact for one step only. Both hold no more than one step's graph in memory."""

    @model_validator(mode="after")
    def _within(self) -> "TrajectoryConfig":
        needed = (self.max_start_epoch or 1) - 1 + self.expert_epochs
        if self.train_epochs is not None and self.train_epochs < needed:
            raise ValueError(
                f"trajectory.train_epochs must be at least {needed}, where the target of the latest start is "
                f"(max_start_epoch - 1 + expert_epochs); got {self.train_epochs}; raise it, or set it to null"
            )
        return self


class KernelConfig(Section):
    """Kernel ridge regression on S (method kip)."""

    name: Literal["fc_ntk", "fc_nngp", "features"] = "fc_ntk"
    """Products of two images: of the gradients, or of the outputs, of a fully connected ReLU net of infinite width
    (NTK, NNGP), or of the features that fresh nets of `net` make of them (RFAD)."""
    depth: int = Field(1, ge=1)
    """Hidden layers of the net of infinite width."""
    weight_variance: float = Field(2.0, gt=0)
    """Of a net's weights, times the inputs of their layer (sigma_w squared)."""
    bias_variance: float = Field(0.01, ge=0)
    """Of its biases (sigma_b squared)."""
    nets: int = Field(8, ge=1)
    """Of features, drawn anew in each iteration."""
    regularisation: float = Field(1e-6, gt=0)
    """Of the regression, as a share of the mean product of an image of S with itself. Published: 1e-6 (KIP), 5e-3
    (RFAD)."""


class UnrollConfig(Section):
    """Training on S that is differentiated through (methods dd and ld)."""

    start: Literal["random", "fixed", "kept"] = "random"
    """Where a net begins in an iteration: new weights, those of the first iteration again, for which alone S is then
    good, or where an Adam step on S has taken it in each iteration before (ld)."""
    nets: int = Field(1, ge=1)
    """Nets of an iteration, whose gradients are averaged; 1 where `start` is kept."""
    steps: int = Field(10, ge=1)
    """SGD steps of a net in an epoch over S."""
    epochs: int = Field(3, ge=1)
    """How often these are taken, with learning rates of their own."""
    batches: Literal["parts", "all", "drawn"] = "parts"
    """What a step of an epoch is taken on: a part of S of its own, as many images of every class (with fewer images of
    a class than steps one in turn), all of S, or `batch` images that are drawn from it."""
    batch: int = Field(50, ge=1)
    """Images that are drawn for a step, at most all."""
    lr: float = Field(0.02, gt=0)
    """Learning rate of a net's steps on S; dd learns that of each, from here on. Published: 0.02 for MNIST, 0.001 for
    CIFAR-10; ld 0.01."""
    truncate: int | None = Field(None, ge=1)
    """Steps that are differentiated through, the last ones; null: all."""
    halvings: int = Field(9, ge=0)
    """How often the learning rate of what is learnt is halved, at even distances."""
    net_lr: float = Field(0.001, gt=0)
    """Learning rate of the Adam by which a kept net learns S."""
    restart: int | None = Field(None, ge=1)
    """Iterations in the mean of a kept net's error after its steps; after one more than as many without a lower mean a
    new net is begun. null: as published, 100 above 10 classes, else 200 above 100 images and 50 below."""

    @model_validator(mode="after")
    def _one_kept(self) -> "UnrollConfig":
        if self.start == "kept" and self.nets != 1:
            raise ValueError(
                f"unroll.nets must be 1 where unroll.start is kept; got {self.nets}; set it, or unroll.start=random"
            )
        return self


class SelectConfig(Section):
    """What is chosen: by the net of herding, kcenter and forgetting, and among which crops by rded."""

    epochs: int = Field(20, ge=1)
    """Epochs over the training part; one is an iteration of the method."""
    never_learnt: Literal["by_count", "first"] = "by_count"
    """Of forgetting, images that the net never took for their class: by how often they were forgotten, which is never
    (as published for condensation), or before all others (Toneva et al., 2019)."""
    candidates: int = Field(300, ge=1)
    """Of rded: training images of each class that crops are taken of, drawn at random; a smaller class gives all."""
    crops: int = Field(5, ge=1)
    """Of rded: random crops of each of them, of which the surest is a candidate."""


class TeacherConfig(Section):
    """The net that `condense.labels` soft asks, trained on the training part as `queue` and `condense.augment` say."""

    net: Literal["convnet", "alexnet", "vgg11", "resnet18", "lenet", "mlp"] | None = None
    """Its architecture, as published; null: that of `net`."""
    epochs: int = Field(60, ge=1)
    """Epochs over the training part; trained once and kept."""
    temperature: float = Field(1.0, gt=0)
    """Its logits are divided by this before they become probabilities."""


class EvaluateConfig(Section):
    """How a condensed set is judged: nets trained from scratch on it."""

    preset: Literal["idm", "dc", "datadam", "ncfm", "rded"] = "idm"
    """Whose way to judge: sets all that was published for it. idm is also that of DSA and DM. What is set beside it or
    later wins."""
    every: int = Field(1000, ge=1)
    """Iterations between two looks at validation accuracy; also where a trial saves its state."""
    epochs: int = Field(1000, ge=1)
    """Epochs of the full protocol (test)."""
    repeats: int = Field(5, ge=1)
    """Nets of the full protocol."""
    val_epochs: int | None = Field(None, ge=1)
    """Epochs when looking at validation accuracy; null: as `epochs`."""
    val_repeats: int = Field(1, ge=1)
    """Nets when looking at validation accuracy."""
    expand: bool = True
    """Train on the l x l expanded parts, as condensation saw them."""
    batch: int = Field(256, ge=1)
    """Images in an optimiser step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Of the nets."""
    lr: float = Field(0.01, gt=0)
    """Learning rate at first, see `schedule`."""
    schedule: Literal["half", "fifths", "cosine"] = "half"
    """half: the learning rate is multiplied by 0.1 after half of the epochs, where the optimiser starts anew; fifths:
    by 0.5 after each fifth of them (NCFM); cosine: it falls to half of itself along a quarter of a cosine (RDED)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(5e-4, ge=0)
    """Of the optimiser."""
    augment: str = DSA
    """DSA operations: one drawn per batch, its parameters per image; none for no DSA. For digits, mnist and svhn
    without flip unless set."""
    cutmix: float = Field(0.0, ge=0, le=1)
    """Probability that the images of a batch get a box of others, and their labels a share of theirs (NCFM: 0.5)."""
    relabel: bool = False
    """Where labels are a teacher's (`condense.labels` soft): whether it labels each view that a net is trained on anew,
    augmented and mixed, instead of each part of S once (RDED)."""
    temperature: float = Field(1.0, gt=0)
    """Where it does: its logits, and the net's own, are divided by this before they become probabilities (RDED: 20)."""
    best_of: int = Field(1, ge=1)
    """Looks at a net during its training, evenly spread, of which the best counts, as NCFM and others report (each
    hundredth epoch). Above 1 a test figure is selected on test, and is told so; 1: the look after the last epoch."""
    cross_nets: tuple[Literal["convnet", "alexnet", "vgg11", "resnet18", "lenet", "mlp"], ...] = ("mlp",)
    """Nets, each as published but for the settings' own, whose mean accuracy on validation is the goal cross_accuracy;
    trained as the net of the settings is when looking at validation accuracy, on the set that a trial ends with."""
    stack: Literal["auto", "on", "off"] = "auto"
    """on: train all nets of an evaluation side by side as one, unless they have batch norm; off: one after
    another, which steps replayed from a CUDA graph make the faster way; auto: on with CUDA where nothing is replayed,
    since `compute.compile` is on or off, as many side by side as fit; else off."""
    references: tuple[Literal["random", "whole"], ...] = ("random",)
    """Reference points on test: random real images at the same ipc, and the whole training part."""
    whole_epochs: int = Field(50, ge=1)
    """Epochs over the whole training part for its reference."""

    _augment = field_validator("augment")(_check_augment)


class ComputeConfig(Section):
    """Where and how precisely to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one. In a sweep trials without a share of a GPU compute on the CPU."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """auto: bf16 where the hardware multiplies it faster (CUDA, AMX, AVX-512 BF16), else fp32, decided where a sweep or
    a condensation is started and kept when it is resumed; tf32: fp32 whose convolutions and matrix products a CUDA
    device rounds to TensorFloat32. DC, DSA, IDC and MTT match in fp32, which CUDA rounds likewise unless fp32 is
    set."""
    compile: Literal["auto", "on", "off"] = "auto"
    """on: torch.compile; off: neither that nor anything of our own; auto: our own operations where the net has them
    (instance norm, average pooling), else torch.compile where the run is long enough to earn it back; on CUDA, training
    steps of nets that are not compiled are replayed as CUDA graphs."""
    deterministic: bool = False
    """Whether CUDA sums in a fixed order, so that S repeats in every bit there, too, as it does on the CPU anyway:
    without the atomic additions of the fast ways, and slower."""
    chunk: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images that go through a net at a time, at most, with what their gradient needs; of one image of S always all
    parts, of CAFE, DC, DSA and IDC all of a class; batches that train nets stay whole. auto: as many as memory allows
    and time rewards, decided before a run begins and kept when it is resumed."""


def _share(share: float) -> float:
    if 0 < share < LEAST_SHARE:
        raise ValueError(f"must be 0, or at least {LEAST_SHARE}; got {share:g}")
    return share


class SweepConfig(Section):
    """How many trials, where, and who chooses them."""

    trials: int = Field(32, ge=1)
    """How many settings are tried; with several `seeds` each counts."""
    objectives: tuple[
        Literal["val_accuracy", "cross_accuracy", "seconds", "set_bytes", "peak_bytes"], ...
    ] = ("val_accuracy",)
    """Goals, val_accuracy first: accuracy on validation; the mean of `evaluate.cross_nets` there; seconds of computing,
    with what a shared real side did; bytes of the condensed set; and memory at the highest point."""
    within: float = Field(0.0, ge=0, le=100)
    """Percentage points of validation accuracy that may be given up for the further goals: of all points so near to the
    highest, the one that is best in the next goal is chosen."""
    seeds: int = Field(1, ge=1, le=100)
    """Seeds that a point is condensed with, from `seed` on, one after another; one that can no longer be the best is
    given up, and of the others the means over seeds are compared."""
    recheck: int = Field(0, ge=0)
    """Points that are evaluated on validation once more before the best is chosen among them, by `evaluate.repeats`
    nets that nothing was selected by."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null: as many as the resources hold."""
    gpus_per_trial: Annotated[float, Field(ge=0), AfterValidator(_share)] | Literal["auto"] = 0.0
    """0.25 packs four trials on a GPU, each kept to a quarter of its memory; auto: as many as the forecast of their
    memory allows, decided before a sweep begins."""
    mps: Literal["auto", "off"] = "auto"
    """auto: where trials share a GPU of this machine and `nvidia-cuda-mps-control` is there, it is started for the
    sweep, so that they compute side by side; off: they take turns on the GPU."""
    cpus_per_trial: float = Field(1.0, ge=LEAST_SHARE)
    """Also the number of torch threads of a trial (at least one)."""
    sampler: Literal["tpe", "nsga2", "random", "grid"] = "tpe"
    """Who suggests: Optuna's tree-structured Parzen estimator, its genetic algorithm NSGA-II, chance, or all points of
    a finite space in order."""
    startup_trials: int = Field(8, ge=1)
    """Trials sampled at random before TPE models them; with nsga2 the size of a generation, at least 2."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Who stops trials that fall behind: below the median of the others at the same iteration, Hyperband, or nobody."""
    prune_after: int = Field(0, ge=0)
    """Iterations before which no trial is pruned."""
    prune_startup: int = Field(4, ge=0)
    """Trials that must have ended before the median is trusted."""
    max_failures: int = Field(2, ge=0)
    """Times in a row that a trial is started again, from its checkpoint, after its process died and got no further."""
    stall_timeout: float | None = Field(None, gt=0)
    """Seconds without an iteration, and without a look that ends, after which a trial's process is killed, to go on in
    another; null: it is told of only."""
    best: int = Field(1, ge=0)
    """Trials that are evaluated on test at the end."""
    reuse: bool = True
    """Whether a trial that a sweep in the same `output_dir` has computed before, in every bit, is answered from there:
    its looks and a copy of its condensed set are taken over, and nothing is computed; not with several objectives."""
    warm_start: Annotated[tuple[Source, ...], BeforeValidator(listed)] = ()
    """Earlier sweeps by name, folder or URI, to begin with: what they found is shown to the sampler where it means the
    same here, and else their best points are tried first. Decided when a sweep begins."""
    share: Literal["auto", "off"] = "auto"
    """auto: trials with equal real sides get their records from one process, where that saves time; off: never."""
    real_workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Workers of a shared real side, each of which takes what a trial takes: they compute its nets side by side, with
    the same bits. auto: as many as would find processors or GPUs idle otherwise, while that half takes longer."""
    shards: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Workers of each trial of IDM or DM, each of which takes what a trial takes: they own some classes of S each, and
    share the nets of a look, with the same bits. There are no more than groups of classes that fit `compute.chunk`.
    auto: as many as would find processors or GPUs idle otherwise, and save more than their start takes."""
    share_gb: float = Field(4.0, gt=0)
    """Gigabytes of records (a net's weights, and what the loss needs of each class) kept for late trials, of all real
    sides together."""
    time_budget: float | None = Field(None, gt=0)
    """Seconds that this run of the sweep may take. No trial starts that would not end in them, what the evaluation on
    test takes is kept, and it can be resumed."""
    cpu_hours: float | None = Field(None, gt=0)
    """Hours of processors that the sweep may hold in all its runs, whether it computes with them or not; likewise."""
    gpu_hours: float | None = Field(None, gt=0)
    """Hours of GPUs, shares of them counted as such; likewise."""
    address: str | None = None
    """Address of a Ray cluster (host:port); null starts Ray on this machine, where nobody else can reach it."""
    insecure: bool = False
    """Join a cluster that asks for no token, in which whoever reaches its ports runs code."""
    output_dir: Location = Path("runs")
    """Folder of all sweeps on this machine, whatever node trials run on; or a URI that pyarrow opens, such as
    s3://bucket/runs, with endpoint and credentials in the environment of every node."""
    tracking_uri: Address | None = None
    """MLflow tracking URI, without a password; null: sqlite in the output folder."""

    @model_validator(mode="after")
    def _judged(self) -> "SweepConfig":
        goals = self.objectives
        if goals[:1] != ("val_accuracy",) or len(set(goals)) < len(goals):
            raise ValueError(
                "sweep.objectives must begin with val_accuracy, and name each goal once; got "
                f"{', '.join(goals) or 'none'}"
            )
        if len(goals) == 1 and self.within:
            raise ValueError(
                f"sweep.within gives up accuracy for another goal, of which there is none; got {self.within:g}: name "
                "one in sweep.objectives, such as [val_accuracy, seconds]"
            )
        if len(goals) > 1 and self.pruner != "none":
            raise ValueError(
                f"sweep.pruner must be none with {len(goals)} objectives: it would end trials whose accuracy is low, "
                f"of which one may be the best in {goals[1]}; got {self.pruner}"
            )
        if self.sampler == "nsga2" and self.startup_trials < 2:
            raise ValueError(
                f"sweep.startup_trials must be at least 2, the size of a generation of nsga2; got {self.startup_trials}"
            )
        return self

    @property
    def gpu_share(self) -> float:
        """`gpus_per_trial` as a number; nobody asks before `auto` is decided."""
        return 1.0 if self.gpus_per_trial == "auto" else self.gpus_per_trial


class Uniform(Section):
    """A real number, uniform between two bounds (both included)."""

    uniform: tuple[float, float]


class LogUniform(Section):
    """A positive real number, uniform in its logarithm."""

    loguniform: tuple[float, float]


class Int(Section):
    """A whole number between two bounds (both included), optionally with a step."""

    int: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)]


class Choice(Section):
    """One of a list of values."""

    choice: Annotated[tuple[bool | int | float | str | None, ...], Field(min_length=1)]


Domain = Uniform | LogUniform | Int | Choice
DOMAINS: dict[str, type[Section]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "int": Int,
    "choice": Choice,
}

DEFAULT_SEARCH: dict[str, Domain] = {
    "condense.lambda_reg": LogUniform(loguniform=(1, 500)),
    "queue.train_steps": Choice(choice=(5, 10, 20, 50)),
    "queue.max_nets": Choice(choice=(10, 50, 100)),
    "condense.partition": Choice(choice=(1, 2, 3)),
}


class Config(Section):
    """All settings of a run."""

    seed: int = Field(0, ge=0)
    """Root of all randomness, equal for all trials of a sweep unless it is searched, or `sweep.seeds` gives several."""
    dataset: DatasetConfig = DatasetConfig()
    net: NetConfig = NetConfig()
    condense: CondenseConfig = CondenseConfig()
    loss: LossConfig = LossConfig()
    queue: QueueConfig = QueueConfig()
    gradient: GradientConfig = GradientConfig()
    cafe: CafeConfig = CafeConfig()
    unroll: UnrollConfig = UnrollConfig()
    trajectory: TrajectoryConfig = TrajectoryConfig()
    kernel: KernelConfig = KernelConfig()
    select: SelectConfig = SelectConfig()
    teacher: TeacherConfig = TeacherConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compute: ComputeConfig = ComputeConfig()
    search: dict[str, Domain] = DEFAULT_SEARCH
    """Settings to search, each with a domain: {uniform: [low, high]}, {loguniform: [low, high]},
    {int: [low, high, step]} or {choice: [values]}; null leaves one out. Without it: lambda_reg, K, N_max and l."""
    sweep: SweepConfig = SweepConfig()

    @field_validator("search", mode="before")
    @classmethod
    def _parse_search(cls, search: Any) -> Any:
        if not isinstance(search, Mapping):
            raise ValueError(
                f"must map settings to domains, such as {{condense.lr: {{uniform: [0.1, 1]}}}}; got {brief(search)}"
            )
        return {key: _domain(key, value) for key, value in search.items() if value is not None}

    @model_validator(mode="after")
    def _blendable(self) -> "Config":
        if self.queue.source == "blend" and self.net.norm == "batch":
            raise ValueError(
                "queue.source must be queue where net.norm is batch, whose statistics cannot be blended; got blend"
            )
        return self

    @model_validator(mode="after")
    def _differentiable(self) -> "Config":
        if self.condense.method in DIFFERENTIATED and self.net.norm == "batch":
            raise ValueError(
                f"net.norm must not be batch for method {self.condense.method}, which differentiates through a net's "
                "training, where its running statistics have no gradient; set instance, group, layer or none"
            )
        return self

    @model_validator(mode="after")
    def _one_meaning_of_seed(self) -> "Config":
        if self.sweep.seeds > 1 and "seed" in self.search:
            raise ValueError(
                f"seed must not be searched where sweep.seeds gives each point several; got sweep.seeds "
                f"{self.sweep.seeds}: set it to 1, or leave search.seed out"
            )
        return self

    @model_validator(mode="after")
    def _learning(self) -> "Config":
        method = self.condense.method
        if self.condense.labels == "learned" and method not in LEARN_LABELS:
            raise ValueError(
                f"condense.labels learned is for methods that learn them, {', '.join(LEARN_LABELS)}; got method "
                f"{method}; set condense.labels=hard or soft"
            )
        return self

    @property
    def splittable(self) -> bool:
        """Whether classes of S can be owned by several workers, whichever of the losses that are searched it is."""
        return not WHOLE_LOSSES & self._values("condense.loss")

    @model_validator(mode="after")
    def _owned(self) -> "Config":
        shards = self.sweep.shards
        if shards not in (1, "auto") and not self.splittable:
            losses = ", ".join(sorted(WHOLE_LOSSES))
            raise ValueError(
                f"sweep.shards must be 1 or auto where condense.loss may be {losses}, in which all classes of S meet; "
                f"got {shards}"
            )
        return self

    @property
    def trial_compute(self) -> ComputeConfig:
        """`compute` of a trial: device `auto` is CUDA for one with a share of a GPU, else the CPU."""
        if self.compute.device != "auto":
            return self.compute
        return self.compute.model_copy(update={"device": "cuda" if self.sweep.gpus_per_trial else "cpu"})

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        method, preset = self.condense.method, self.condense.preset
        if preset not in METHOD_PRESETS[method]:
            choices = ", ".join(METHOD_PRESETS[method])
            raise ValueError(f"condense.preset of method {method} must be one of {choices}; got {preset}")
        for key, required in FIXED[method].items():
            if self.get(key) != required:
                raise ValueError(
                    f"{key} must be {required} for method {method}; got {self.get(key)} (method idm uses it)"
                )
        taught = READ_BY_TEACHERS if "soft" in self._values("condense.labels") else frozenset()
        searched = [key for key in self.search if key not in taught]
        idle = [key for key in searched if all(ignores(each, key) for each in self.methods)]
        for key in self.search:
            decides, reading = READ_BY.get(key, ("", set()))
            values = self._values(decides) if decides and key not in idle else set()
            if values and not values & reading and not self._reads_anyway(key, decides):
                raise ValueError(
                    f"{key}: {decides} {' or '.join(sorted(map(str, values)))} does not read that, which so cannot be "
                    f"searched; set search.{key}=null"
                )
        if idle:
            methods, mend = " or ".join(self.methods), " ".join(f"search.{key}=null" for key in idle)
            raise ValueError(
                f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect on method {methods} "
                f"and cannot be searched; set {mend}"
            )
        return self

    def _reads_anyway(self, key: str, decides: str) -> bool:
        """Whether a method reads a setting without asking the one that decides about it elsewhere."""
        return any(
            ignores(each, decides) and decides not in FIXED[each] and not ignores(each, key)
            for each in self.methods
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The method, or those that are searched."""
        for key in ("condense.preset", "condense.method"):
            searched = self.search.get(key)
            if isinstance(searched, Choice):
                named = (method_of({key: value}) for value in searched.choice)
                return tuple(dict.fromkeys(name for name in named if name in METHOD_PRESETS))
        return (self.condense.method,)

    def _values(self, key: str) -> set[Any]:
        """Of a dotted key: its value, or those that are searched, by itself, presets or methods, where it is read."""
        section, _, name = key.partition(".")
        own, searched = self.get(key), self.search.get(key)
        if isinstance(searched, Choice):
            return set(searched.choice)
        if section == "evaluate":
            judges = self.search.get("evaluate.preset")
            named = judges.choice if isinstance(judges, Choice) else ()
            return {EVALUATE_PRESETS.get(str(each), {}).get(name, own) for each in named} or {own}
        presets, found = self.search.get("condense.preset"), set()
        if isinstance(presets, Choice):
            named = tuple(map(str, presets.choice))
        else:
            others = [method for method in self.methods if method != self.condense.method]
            named = tuple(METHOD_PRESETS[method][0] for method in others)
            found = (
                _as_read(self.condense.method, key, own) if self.condense.method in self.methods else set()
            )
        for preset in named:
            if preset in PRESETS:
                method, value = PRESETS[preset]["condense"]["method"], PRESETS[preset][section].get(name, own)
                found |= _as_read(method, key, value)
        return found

    def get(self, key: str) -> Any:
        """The value of a dotted key such as ``condense.lambda_reg``."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value

    def to_raw(self) -> Raw:
        """Plain dicts, lists, numbers and strings, as YAML and JSON hold them; every setting is present."""
        return self.model_dump(mode="json")


def _as_read(method: str, key: str, value: Any) -> set[Any]:
    """What a method takes a setting for that has a value: the one it fixes, this one, or none."""
    if key in FIXED[method]:
        return {FIXED[method][key]}
    return set() if ignores(method, key) else {value}


def _domain(key: str, value: Any) -> Domain:
    if isinstance(value, Section):
        return value  # type: ignore[return-value]
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in DOMAINS:
        raise ValueError(
            f"search.{key} must be one of {', '.join(f'{{{name}: [...]}}' for name in DOMAINS)}; got {brief(value)}"
        )
    name = next(iter(value))
    try:
        domain = DOMAINS[name].model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(
            f"search.{key}: {name}: {problem['msg'].lower()}; got {brief(problem['input'])}"
        ) from None
    bounds = getattr(domain, name)
    if name == "choice":
        return domain  # type: ignore[return-value]
    if name == "int" and max(map(abs, bounds)) > MOST_SEARCHED:
        raise ValueError(
            f"search.{key}: whole numbers that are searched end at 2^53; got {brief(list(bounds))}"
        )
    if bounds[0] >= bounds[1]:
        raise ValueError(f"search.{key}: the lower bound must be below the upper one; got {list(bounds)}")
    if name == "loguniform" and bounds[0] <= 0:
        raise ValueError(f"search.{key}: loguniform needs bounds above 0; got {list(bounds)}")
    if name == "int" and len(bounds) == 3 and bounds[2] < 1:
        raise ValueError(f"search.{key}: the step must be at least 1; got {bounds[2]}")
    return domain  # type: ignore[return-value]
