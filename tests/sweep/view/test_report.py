import base64
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from optuna.trial import TrialState
from PIL import Image

from idm_ray.settings.published import column
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.view.report import charts as figures
from idm_ray.sweep.view.report import write_report

EVALUATION = {"runs": [40.0, 42.0], "seconds": 3.0, "epochs": 10}


class Page(HTMLParser):
    """What a browser would load, and the text of table rows and of the rest."""

    def __init__(self, html):
        super().__init__()
        self.addresses, self.rows, self.images, self.text, self._row = [], [], {}, "", None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        if tag == "img":
            self.images[given["alt"]] = given["src"]
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag):
        if tag == "tr":
            self.rows.append(self._row)
            self._row = None

    def handle_data(self, data):
        if self._row:
            self._row[-1] += data
        self.text += data


@pytest.fixture
def sweep(tmp_path, tiny_config):
    """Makes the folder of a sweep that ended with these accuracies; None is a failed trial, a text a pruned one."""

    def make(accuracies, *overrides, test=None, state="done"):
        folder = tmp_path / "runs" / "made"
        config = tiny_config(f"sweep.trials={len(accuracies) + 1}", *overrides)
        folder.mkdir(parents=True)
        study = SweepStudy(config, folder / "study.db")
        study.set_attribute("config", config.to_raw())
        for accuracy in accuracies:
            number = study.ask().number
            if accuracy is None:
                study.tell(
                    number, TrialState.FAIL, reason="not finite at iteration 3 <script>alert(1)</script>"
                )
                continue
            for iteration in (2, 4, 6):
                study.report(number, float(accuracy) - 6 + iteration, iteration)
            facts = {
                "iteration": 6,
                "val_accuracy": float(accuracy),
                "seconds": 10.0 + number,
                "shared_seconds": 4.0,
            }
            study.set_trial_attribute(number, "report", {**facts, "device": "cpu"})
            pruned = isinstance(accuracy, str)
            study.tell(number, TrialState.PRUNED if pruned else TrialState.COMPLETE, float(accuracy))
            condensed = folder / "trials" / f"{number:04d}" / "condensed"
            condensed.mkdir(parents=True)
            Image.new("L", (4, 4)).save(condensed / "grid.png")
        summary = {"state": state, "seconds": 12.0, "device": "cpu", "test": test or {}}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def page_of(folder):
    return Page(write_report(folder, "sqlite:///store.db").read_text())


def test_a_report_holds_all_that_it_shows(sweep):
    folder = sweep([50.0, 70.0, None, "40", 60.0], test={"0001": EVALUATION, "random": EVALUATION})
    page = page_of(folder)
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert set(page.images) == {
        "condensed images", "Accuracy over iterations", "Accuracy against cost", "Parallel coordinates",
        "Importances", "Slices",
    }  # fmt: skip
    for name, address in page.images.items():
        content = base64.b64decode(address.partition(",")[2])
        assert content.startswith(b"\x89PNG") if name == "condensed images" else ET.fromstring(content).tag
    states = {row[0]: row[1] for row in page.rows if re.fullmatch(r"\d{4}", row[0])}
    assert states == {
        "0000": "complete",
        "0001": "complete",
        "0002": "failed",
        "0003": "pruned",
        "0004": "complete",
    }
    assert ["trial 0001 (best)", "41.00 +- 1.00 % (2 nets, 10 epochs)", "28.29 to 53.71 %"] in page.rows
    assert "<script>alert(1)</script>" in page.text
    assert "Which lambda_reg and partition makes 1 synthetic image per class of digits" in page.text
    assert "idm-ray sweep --resume made" in page.text


@pytest.mark.parametrize(
    ("accuracies", "drawn"),
    [
        ([], set()),
        ([None], set()),
        ([50.0], {"condensed images", "Accuracy over iterations", "Accuracy against cost"}),
        (["40"], {"Accuracy over iterations", "Accuracy against cost"}),
    ],
)
def test_a_sweep_with_little_in_it_has_a_report(sweep, accuracies, drawn):
    page = page_of(sweep(accuracies, state="interrupted"))
    assert set(page.images) == drawn
    assert ("No trial was completed." in page.text) == ("condensed images" not in drawn)


def test_a_search_over_seeds_tells_their_deviation_from_that_of_nets(sweep):
    test = {"0000": EVALUATION, "0001": {**EVALUATION, "runs": [50.0, 54.0]}}
    overrides = ["search={seed: {choice: [3, 4]}}", "sweep.sampler=grid"]
    page = page_of(sweep([50.0, 70.0], *overrides, test=test))
    assert ["all trials", "2", "46.50", "7.78", "2.12", ""] in page.rows


def test_figures_that_were_selected_on_test_are_called_so(sweep):
    words = "selected on test: best of 20 looks"
    page = page_of(sweep([50.0], test={"0000": {**EVALUATION, "selected": words}}))
    assert f"All test figures of this page: {words}." in page.text
    assert any(words in cell for row in page.rows for cell in row)


def test_a_whole_grid_tells_which_setting_earns_how_much(sweep):
    search = "search={seed: {choice: [3, 4]}, condense.lr: {choice: [0.1, 1]}, condense.partition: {choice: [1, 2]}}"
    accuracies = [50.0, 52.0, 60.0, 62.0, 51.0, 53.0, 61.0, 63.0]  # seed, rate, parts in this order
    page = page_of(sweep(accuracies, search, "sweep.sampler=grid"))
    rows = {row[0]: row for row in page.rows if len(row) == 4}
    assert rows["lr"][1:] == ["95.2 %", "10.00", "lr=0.1: -5.00 +- 0.00; lr=1: +5.00 +- 0.00"]
    assert rows["partition"][1:3] == ["3.8 %", "2.00"]
    assert rows["lr x partition"][1:3] == ["0.0 %", "0.00"]
    assert "Over the whole grid, 56.50 % on validation on average" in page.text
    assert "The rest, 1.0 %" in page.text


def test_broken_images_that_were_left_out_are_told(sweep):
    folder = sweep([50.0])
    assert "left out" not in page_of(folder).text
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "left_out": 7}))
    assert "broken images left out" in page_of(folder).text


def test_published_figures_stand_beside_ours_where_there_are_any(sweep):
    test = {"0000": EVALUATION, "random": {**EVALUATION, "runs": [15.0]}}
    search = "search={condense.lr: {uniform: [0.1, 1]}}"
    folder = sweep(
        [50.0], "dataset.name=cifar10", "condense.method=dm", "queue.train_steps=0", search, test=test
    )
    rows = {row[0]: row[1:] for row in page_of(folder).rows}
    published = column("cifar10", 1)
    assert rows["DM"] == ["26.0 +- 0.8", "41.00 +- 1.00", "+15.00"]
    assert rows["Random"] == ["14.4 +- 2.0", "15.00 +- 0.00", "+0.60"]
    assert rows["IDM"] == [published["IDM"].text, "", ""]
    assert len(published) == 11 + 6  # of the paper, and of later losses


@pytest.mark.parametrize(
    ("subset", "size", "rows"),
    [
        ("imagenette", 128, {"DM": "32.8 +- 0.5", "NCFM": "53.4 +- 1.6"}),
        ("imagefruit", 128, {"MTT": "26.6 +- 0.8"}),
        ("imagefruit-ncfm", 128, {"NCFM": "29.2 +- 0.7"}),
        ("imagenet100-idm", 224, {"IDM": "11.2 +- 0.5"}),
        ("imagenet100-idm", 128, {}),
        ("imagenet100-cmc", 224, {}),
    ],
)
def test_published_figures_are_those_of_the_same_list_of_classes(sweep, subset, size, rows):
    images = ("dataset.name=imagenet", f"dataset.subset={subset}", f"dataset.image_size={size}")
    page = page_of(sweep([50.0], *images, "search={condense.lr: {uniform: [0.1, 1]}}"))
    shown = {row[0]: row[1] for row in page.rows}
    assert shown.items() >= rows.items()
    assert ("Published figures" in page.text) == bool(rows)
    others = {"imagefruit": "NCFM", "imagefruit-ncfm": "MTT"}
    assert others.get(subset) not in shown


def test_the_same_sweep_gives_the_same_figures(sweep):
    folder = sweep([50.0, 70.0, 60.0])
    assert page_of(folder).images == page_of(folder).images


def test_trials_of_different_methods_are_drawn_by_what_they_have_in_common(sweep):
    search = "search={condense.method: {choice: [dm, idm]}, condense.lambda_reg: {choice: [1, 2]}}"
    page = page_of(sweep([50.0, 70.0, 60.0], search, "sweep.sampler=grid"))
    assert "Complete trials, by method." in page.text


def test_the_front_is_what_no_cheaper_trial_reaches():
    points = [(3.0, 5.0), (1.0, 2.0), (2.0, 1.0), (2.5, 5.0), (4.0, 5.5)]
    better = [p for p in points if not any(o[0] <= p[0] and o[1] >= p[1] and o != p for o in points)]
    assert figures.pareto(points) == sorted(better)


def test_a_sweep_is_found_by_name_by_folder_and_as_the_latest(call, refused, sweep, monkeypatch):
    folder = sweep([50.0])
    monkeypatch.chdir(folder.parent.parent)
    output = folder.parent.relative_to(folder.parent.parent)
    for name in ("made", "latest", folder):
        assert (
            Path(call("report", name, "--output-dir", output).output.strip()).resolve()
            == folder / "report.html"
        )
    assert "there is no sweep 'other' in runs; known are made" in refused(
        "report", "other", "--output-dir", output
    )
