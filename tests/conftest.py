"""A data set small enough to condense in milliseconds, and sweeps small enough to test with."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from forks import Forks

import idm_ray.sweep  # noqa: F401  sets what Ray reads when it is imported
from idm_ray.commands.main import main
from idm_ray.condensation import Condensation, condense
from idm_ray.data import ClassImages, Data
from idm_ray.evaluation.prepare import prepare
from idm_ray.runtime.compute import Compute
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.settings.sections import Config

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Processes that tests start compute with one thread, too: several with more would wait for each other's."""


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, metavar="N", help="inputs for each test of tests/fuzz")


PATIENCE = 1200
"""Seconds after which something hangs, however slow the machine; what a test finds never depends on it."""

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SMALL = (
    "net.width=4",
    "net.depth=1",
    "condense.ipc=2",
    "condense.iterations=5",
    "condense.batch_real=6",
    "queue.batch=8",
    "queue.train_steps=2",
    "queue.push_every=2",
    "evaluate.epochs=3",
    "evaluate.repeats=2",
    "evaluate.batch=8",
    "search={}",
)
COUNTS = {"train": (20, 17, 23), "validation": (3, 3, 3), "test": (5, 5, 5)}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from more, and results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_config() -> Callable[..., Config]:
    """Builds a small config; ``key=value`` strings override it."""

    def build(*overrides: str) -> Config:
        return build_config(("tests", parse_overrides(SMALL)), ("override", parse_overrides(overrides)))

    return build


@pytest.fixture
def small_data() -> Callable[..., Data]:
    """Builds random images, of 8x8 if not of another size, in 3 classes; `unseen` fills validation and test with other
    pixels."""

    def build(unseen: int | None = None, channels: int = 3, size: tuple[int, int] = (8, 8)) -> Data:
        generator = torch.Generator().manual_seed(7)
        parts = {}
        for name, counts in COUNTS.items():
            pixels = torch.randint(
                256, (sum(counts), channels, *size), dtype=torch.uint8, generator=generator
            )
            if unseen is not None and name != "train":
                pixels.fill_(unseen)
            offsets = [sum(counts[:index]) for index in range(len(counts) + 1)]
            rows = torch.arange(sum(counts))
            parts[name] = ClassImages(pixels, rows, offsets, (0.5,) * channels, (0.25,) * channels)
        return Data(
            name="random",
            **parts,
            class_names=("ant", "bee", "cat"),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            shape=(channels, *size),
            checksum="0" * 64,
            source="random pixels",
        )

    return build


@pytest.fixture
def cpu() -> Compute:
    """Eager float32 on the CPU."""
    return Compute(torch.device("cpu"), torch.float32, compile=False)


TINY = (
    "net.width=8",
    "net.depth=1",
    "condense.ipc=1",
    "condense.iterations=6",
    "condense.batch_real=16",
    "condense.lr=0.1",
    "queue.batch=16",
    "queue.train_steps=1",
    "queue.push_every=2",
    "evaluate.every=2",
    "evaluate.epochs=3",
    "evaluate.repeats=1",
    "compute.precision=fp32",
    "compute.compile=off",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
    "sweep.prune_startup=100",
    "sweep.share=off",
    "sweep.reuse=false",
    "evaluate.references=[]",
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of the session's own, for this process and those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("IDM_RAY_CACHE")
    os.environ["IDM_RAY_CACHE"] = str(folder)
    yield folder
    os.environ.pop("IDM_RAY_CACHE")
    if before is not None:
        os.environ["IDM_RAY_CACHE"] = before


@pytest.fixture
def tiny_config():
    """Builds the tiny config with further ``key=value`` overrides."""

    def build(*overrides: str):
        return build_config(("tests", parse_overrides(TINY)), ("override", parse_overrides(overrides)))

    return build


class Sweep:
    """`scripts/sweep.py` in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, arguments: Sequence[str], forks: Forks | None):
        self._log = folder / f"log-{time.monotonic_ns()}.txt"
        self._log.touch()
        script = SCRIPTS / "sweep.py"
        forked = forks.start(script, arguments, folder, self._log) if forks else None
        self.process = forked or self._started([sys.executable, str(script), *arguments], folder)

    def _started(self, command: list[str], folder: Path) -> subprocess.Popen[bytes]:
        with self._log.open("a") as log:
            return subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the sweep ended early:\n{self.output}"
            assert time.monotonic() < end, f"waited in vain:\n{self.output}"
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C: SIGINT to the whole group; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """What the out-of-memory killer does to the driver."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def finish(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def alone() -> Callable[[Config], Condensation]:
    """Runs a condensation to its end in a bare loop, on one thread as in a trial."""

    def run(config: Config) -> Condensation:
        found = condense(config, *prepare(config))
        for _ in found:
            pass
        return found

    return run


@pytest.fixture(scope="session")
def made_store(tmp_path_factory) -> Path:
    """MLflow's database as the first sweep of a folder makes it, which takes seconds."""
    from idm_ray.sweep.tracking.store import make_store  # imports MLflow, which takes seconds

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_store(f"sqlite:///{file}")
    return file


@pytest.fixture
def one_at_a_time(tmp_path, made_store) -> Path:
    """The tiny config as a file, of which one trial runs at a time; beside an earlier sweep's database."""
    (tmp_path / "runs").mkdir(exist_ok=True)
    shutil.copy(made_store, tmp_path / "runs")
    return tiny_file(tmp_path / "one.yaml", "sweep.max_concurrent=1")


@pytest.fixture(scope="session")
def forks(cache):
    """Starts scripts without loading their packages anew."""
    found = Forks()
    yield found
    found.close()


@pytest.fixture
def start(tmp_path, one_at_a_time, forks):
    """Starts a sweep `one_at_a_time` in a folder of `tmp_path`, with more arguments; ends what a failed test leaves.

    It is forked, unless it is told not to be, from one process, whose seed for the hashes of strings all have then.
    """
    started = []

    def run(*arguments: str, config: bool = True, folder: str = ".", forked: bool = True) -> Sweep:
        given = [str(one_at_a_time), *arguments] if config else list(arguments)
        started.append(Sweep(tmp_path / folder, given, forks if forked else None))
        return started[-1]

    yield run
    for sweep in started:
        if sweep.process.poll() is None:
            os.killpg(sweep.process.pid, signal.SIGKILL)
            sweep.process.wait(PATIENCE)


def tiny_file(file: Path, *overrides: str) -> Path:
    """The tiny config as a file."""
    file.write_text(yaml.safe_dump(parse_overrides(("dataset.name=digits", *TINY, *overrides))))
    return file


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """The tiny config as a file."""
    return tiny_file(tmp_path / "tiny.yaml")


@dataclass(frozen=True)
class Called:
    """What a command ended with and printed."""

    code: int
    output: str
    errors: str


@pytest.fixture
def call(capsys) -> Callable[..., Called]:
    """Runs ``idm-ray`` in this process."""

    def run(*arguments: object) -> Called:
        capsys.readouterr()
        code = main(arguments=[str(argument) for argument in arguments])
        return Called(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(call) -> Callable[..., str]:
    """The line that arguments of ``idm-ray`` are refused with."""

    def attempt(*arguments: object) -> str:
        called = call(*arguments)
        assert called.code == 2, called
        assert called.output == ""
        assert called.errors.startswith("error: ")
        assert called.errors.count("\n") == 1
        return called.errors.removeprefix("error: ").rstrip()

    return attempt


@pytest.fixture(scope="session")
def made_before(tmp_path_factory):
    """A folder for sweeps that `made_sweep` has made, to be copied, and their names there."""
    return tmp_path_factory.mktemp("made"), {}


@pytest.fixture
def made_sweep(tmp_path, tiny_config, made_before):
    """Makes the folder of a sweep as its driver would leave it, without running any trial.

    Args: its name; for each trial the state that it ends in, its validation accuracies at iterations 2, 4, ... and its
    point; the state of the sweep; accuracies on test of the nets of its best trial and of random images; settings.
    """
    from optuna.trial import TrialState

    from idm_ray.evaluation import Evaluation
    from idm_ray.sweep.budget.account import Account
    from idm_ray.sweep.folders import trial_folder
    from idm_ray.sweep.search.study import REPORT, SweepStudy
    from idm_ray.sweep.view.summary import summarise

    def make(name, trials, state="done", runs=(), random=(), settings=(), output=tmp_path / "runs"):
        kept, known = made_before
        key = repr((name, trials, state, runs, random, settings))
        if key not in known:
            known[key] = kept / str(len(known))
            build(known[key], name, trials, state, runs, random, settings)
        return Path(shutil.copytree(known[key], output / name, copy_function=shutil.copy))

    def build(folder, name, trials, state, runs, random, settings):
        config = tiny_config("sweep.trials=8", *settings)
        folder.mkdir()
        (folder / ".uid").write_text(f"uid of {name}")
        study = SweepStudy(config, folder / "study.db")
        study.set_attribute("config", config.to_raw())
        study.set_attribute("data_checksum", "0" * 64)
        for asked, (end, accuracies) in [(study.ask(), each) for each in trials]:
            number = asked.number
            own = trial_folder(folder, number)
            own.mkdir(parents=True)
            plain = config.to_raw() | {"search": {}}
            for key, value in asked.point.items():
                section, _, setting = key.partition(".")
                plain[section] = {**plain[section], setting: value}
            (own / "trial.yaml").write_text(yaml.safe_dump(plain))
            for look, accuracy in enumerate(accuracies, 1):
                study.report(number, accuracy, 2 * look)
            if end in ("COMPLETE", "PRUNED"):
                facts = {"iteration": 2 * len(accuracies), "val_accuracy": accuracies[-1], "seconds": 10.0 + number,
                         "shared_seconds": 1.0, "peak_bytes": 10**6, "chunk": 1, "device": "cpu"}  # fmt: skip
                study.set_trial_attribute(number, REPORT, facts)
            if end == "WAITING":
                study.release(number)
            elif end != "RUNNING":
                reason = "it diverged" if end == "FAIL" else ""
                if reason:
                    (own / "error.txt").write_text("Traceback\nDiverged: it diverged\n")
                study.tell(number, TrialState[end], accuracies[-1] if accuracies else None, reason)
        best = study.best(1)
        test = {"random": Evaluation(tuple(random), 3.0, 3)} if random else {}
        if runs:
            test[f"{best[0].number:04d}"] = Evaluation(tuple(runs), 2.0, 3)
        facts = {"name": name, "seconds": 40.0, "mlflow_experiment_id": "1", "mlflow_run_id": "parent-run",
                 "seed": config.seed, "data_checksum": "0" * 64}  # fmt: skip
        summary = summarise(
            study, test, facts, state, Account(test=sum(each.seconds for each in test.values()))
        )
        if state != "none":
            summary.write(folder)

    return make


@pytest.fixture
def states():
    """The state of every trial in a sweep's study, read without Optuna."""

    def read(folder: Path) -> list[str]:
        database = folder / "study.db"
        if not database.exists():
            return []
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            try:
                rows = connection.execute("select state from trials order by number").fetchall()
            except sqlite3.OperationalError:
                return []
        return [row[0] for row in rows]

    return read
