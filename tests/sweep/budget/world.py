"""A sweep with a clock of its own: trials of times that nobody knows before, as many at a time as there are lanes."""

import random
from dataclasses import dataclass, field

from idm_ray.condensation import condensation_flops
from idm_ray.data import Outline
from idm_ray.evaluation import evaluation_flops
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.settings.layers import with_point
from idm_ray.sweep.budget.budget import Budget
from idm_ray.sweep.budget.calibration import Calibration
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.paces import Paces
from idm_ray.sweep.budget.purses import HeldBy, purses
from idm_ray.sweep.pulse import HEAR_SECONDS
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.speed import Speed
from idm_ray.sweep.trial import Report

OUTLINE = Outline((3, 8, 8), ("a", "b"), (100, 100), (10, 10), (20, 20))
LENGTH, LOOKS, STEP = 100, 5, 1.0
ONE = Held(1.0)
TIMES = {1: 60.0, 2: 90.0, 3: 130.0}
"""Seconds of a trial on average, by l."""


@dataclass
class Running:
    """A trial at work."""

    config: object
    seconds: float
    accuracy: float
    began: float
    looks: int = 0


@dataclass
class World:
    """What a sweep does with its budget, step by step; its test takes as long as it takes."""

    config: object
    folder: object
    lanes: int
    seed: int
    trial: Held = ONE
    test_seconds: float = 100.0
    foretold: float | None = None
    now: float = 0.0
    running: dict = field(default_factory=dict)
    complete: int = 0
    cut: int = 0
    dropped: int = 0
    test: str = "not begun"

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.meter = Meter(self.folder, clock=lambda: self.now)
        work = HeldBy(self.trial, Held(), self.trial, self.lanes)
        bounds = purses(self.config.sweep, work, self.meter, 0.0, lambda: self.now)
        self.rate = self.test_seconds / self.on_test(with_point(self.config, {"condense.partition": 3}))
        self.best = 0.0
        paces = Paces(OUTLINE, shared=False, calibration=self.calibration())
        self.budget = Budget(paces, bounds, self.lanes, now=lambda: self.now)

    def calibration(self):
        """One by which a trial takes `foretold` seconds, and a few for its start."""
        if self.foretold is None:
            return None
        whole = condensation_flops(self.config, (3, 8, 8), 2) + looks_flops(self.config, (3, 8, 8), 2)
        plan = Plan(False, None, self.lanes, False, float(self.lanes), "")
        return Calibration(self.config, OUTLINE, plan, Speed(*[self.foretold / whole] * 3))

    def on_test(self, config):
        """Operations of the nets of the best trial and of random images."""
        epochs = 2 * config.evaluate.repeats * config.evaluate.epochs
        return evaluation_flops(config, (3, 8, 8), 2, epochs)

    def run(self):
        """To its end; returns itself."""
        number, over, next_look, asked = 0, False, 0.0, None
        while not over and (self.running or number < self.config.sweep.trials):
            while len(self.running) < self.lanes and number < self.config.sweep.trials:
                asked = asked or with_point(
                    self.config, {"condense.partition": self.random.choice(list(TIMES))}
                )
                if not self.budget.affords(asked):
                    break
                self.start(number, asked)
                number, asked = number + 1, None
            if not self.running:
                break
            self.step()
            if self.now >= next_look:
                next_look = self.now + HEAR_SECONDS
                over = self.ends(self.budget.trials_must_end(self.meter.now))
        self.cut = len(self.running)
        self.meter.holds("trials", Held())
        if self.complete:
            self.judge()
        return self

    def start(self, number, config):
        """A trial that takes up to a fifth more or less than others of its kind."""
        seconds = TIMES[config.condense.partition] * self.random.uniform(0.8, 1.2)
        self.budget.begin(number, config)
        self.budget.has_begun(number)
        self.running[number] = Running(config, seconds, self.random.uniform(20, 60), self.now)
        self.meter.holds("trials", self.trial * len(self.running))

    def step(self):
        """A second, and the reports that are due then."""
        self.now += STEP
        for number, each in list(self.running.items()):
            lasted = self.now - each.began
            if lasted < each.seconds * (each.looks + 1) / LOOKS:
                continue
            each.looks += 1
            done = LENGTH * each.looks // LOOKS
            look = self.rate * looks_flops(each.config, (3, 8, 8), 2) * each.looks / LOOKS
            state = "COMPLETE" if each.looks == LOOKS else "RUNNING"
            self.budget.heard(
                number, Report(done, each.accuracy, lasted, state, look_seconds=look, lasted=lasted)
            )
            if each.looks == LOOKS or self.budget.too_much(number):
                if each.looks == LOOKS:
                    self.complete += 1
                    if each.accuracy > self.best:
                        self.best, self.test_seconds = each.accuracy, self.rate * self.on_test(each.config)
                self.dropped += each.looks < LOOKS
                self.budget.end(number)
                del self.running[number]
                self.meter.holds("trials", self.trial * len(self.running))

    def ends(self, now):
        """Whether trials end."""
        return now or self.budget.all_must_end(self.meter.now)

    def judge(self):
        """The evaluation on test, in as many lanes, unless the budget ends before."""
        tasks = 2 * self.config.evaluate.repeats
        self.test, left = "done", self.test_seconds * -(-tasks // self.lanes) / tasks
        self.meter.holds("test", self.trial * self.lanes)
        while left > 0:
            if self.budget.all_must_end(self.meter.now):
                self.test = "cut"
                break
            self.now += STEP
            left -= STEP
        self.meter.holds("test", Held())
