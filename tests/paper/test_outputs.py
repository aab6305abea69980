"""Tables and plots of hand-made cells beside the published figures."""

import csv
import io
import re

import pytest

from idm_ray.paper.plots import draw
from idm_ray.paper.result import Result
from idm_ray.paper.tables import as_csv, markdown
from idm_ray.settings.published import WHOLE, Published


@pytest.fixture
def result(request_for):
    """Builds a result of an experiment from cells and published figures."""

    def build(name, cells, published=None, **asked):
        return Result(request_for(name, **asked), cells, published or {})

    return build


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_has_the_published_figure_ours_and_the_difference(result, cell):
    cells = [cell("IDM", runs=(58.0, 60.0), commit="abc"), cell(WHOLE, runs=(85.0,), iterations=0, epochs=50)]
    text = markdown(
        result("table1", cells, {("IDM", ""): Published(58.6, 0.1), (WHOLE, ""): Published(84.8)})
    )
    assert "# Table 1: Methods" in text
    assert "cifar10, 10 images per class" in text
    assert "| IDM | 58.6 +- 0.1 | 59.00 +- 1.00 | +0.40 | 20000 iterations; 2 nets, 1000 epochs |" in text
    assert f"| {WHOLE} | 84.8 | 85.00 | +0.20 | 1 net, 50 epochs |" in text
    assert "Commit: abc." in text
    assert "scaled" not in text


def test_rows_stand_in_the_papers_order_and_say_what_is_missing(result, cell):
    cells = [cell("DM"), cell("Random"), cell("DC", runs=(), error="S is not finite after iteration 7")]
    text = markdown(result("table1", cells))
    assert re.findall(r"^\| ([A-Z][\w+-]*) \|", text, re.MULTILINE) == [
        "Random", "Herding", "K-Center", "Forgetting", "DC", "DSA", "CAFE", "CAFE+DSA", "DM", "IDM",
    ]  # fmt: skip
    assert "| DC | - | failed | - | S is not finite after iteration 7 |" in text
    assert "| IDM | - | - | - | not run |" in text


def test_csv_has_a_line_for_each_cell(result, cell):
    cells = [cell("IDM", runs=(58.0, 60.0)), cell("DM", runs=(), error="why")]
    rows = {
        row["row"]: row
        for row in rows_of(as_csv(result("table1", cells, {("IDM", ""): Published(58.6, 0.1)})))
    }
    assert (rows["IDM"]["published"], rows["IDM"]["published_std"]) == ("58.6", "0.1")
    assert (float(rows["IDM"]["ours"]), float(rows["IDM"]["ours_std"])) == (59.0, 1.0)
    assert float(rows["IDM"]["difference"]) == pytest.approx(0.4)
    assert (rows["IDM"]["nets"], rows["IDM"]["epochs"], rows["IDM"]["iterations"]) == ("2", "1000", "20000")
    assert (rows["DM"]["ours"], rows["DM"]["error"], rows["IDM"]["scaled"]) == ("", "why", "1")


def test_nets_are_the_columns_of_table_4(result, cell):
    cells = [
        cell("IDM, ConvNet", "convnet", (53.5,)),
        cell("IDM, ConvNet", "alexnet", (44.0,)),
        cell("DM, ConvNet", "alexnet"),
    ]
    lines = markdown(
        result("table4", cells, {("IDM, ConvNet", "convnet"): Published(53.0, 0.3)})
    ).splitlines()
    assert "| method and net that condensed / evaluated with | convnet | alexnet |" in lines
    assert "| IDM, ConvNet | 53.50 (53.0 +- 0.3, +0.50) | 44.00 |" in lines
    assert "| DM, ConvNet |  | 51.00 +- 1.00 |" in lines


def test_scale_marks_every_output(result, cell, tmp_path):
    scaled = result(
        "fig5", [cell("IDM", 1), cell("IDM", 10)], {("IDM", 10): Published(45.1, 0.1)}, scale=0.02
    )
    assert "scaled 0.02" in markdown(scaled).splitlines()[2]
    assert "**scaled 0.02**" in markdown(scaled)
    assert {row["scaled"] for row in rows_of(as_csv(scaled))} == {"0.02"}
    files = draw(scaled, scaled.experiment.axis, tmp_path / f"plot{scaled.request.suffix}")
    assert [file.name for file in files] == ["plot-scaled-0.02.png", "plot-scaled-0.02.svg"]
    assert "scaled 0.02" in files[1].read_text()


def test_a_plot_has_ours_and_the_published_points_and_is_the_same_again(result, cell, tmp_path):
    cells = [
        cell("DM", 10, (30.0, 31.0)),
        cell("DM", 60, (33.0, 34.0)),
        cell("DM + model sampling", "", (35.0,)),
    ]
    published = {("DM", 0): Published(29.7, 0.3), ("DM + model sampling", ""): Published(32.0, 0.5)}
    shown = result("fig3", cells, published)
    png, svg = draw(shown, shown.experiment.axis, tmp_path / "plot")
    text = svg.read_text()
    for words in (
        "DM, ours",
        "DM, published",
        "DM + model sampling, ours",
        "epochs",
        "test accuracy (%)",
        "Figure 3",
    ):
        assert words in text
    assert png.read_bytes().startswith(b"\x89PNG")
    before = png.read_bytes(), svg.read_bytes()
    assert (
        tuple(file.read_bytes() for file in draw(shown, shown.experiment.axis, tmp_path / "plot")) == before
    )


def test_figure_8_has_a_panel_for_each_number_of_steps(result, cell, tmp_path):
    cells = [
        cell(f"{method}, {steps} steps", seen)
        for method in ("Random", "IDM")
        for steps in (5, 10)
        for seen in (20, 100)
    ]
    shown = result("fig8", cells, {("IDM, 5 steps", 100): Published(39.3)})
    text = draw(shown, shown.experiment.axis, tmp_path / "plot")[1].read_text()
    assert text.count(">5 steps<") == text.count(">10 steps<") == 1
    assert text.count(">IDM, ours<") == 2
    assert text.count(">IDM, published<") == 1
    assert "| IDM, 5 steps | 51.00 +- 1.00 | 51.00 +- 1.00 (39.3, +11.70) |" in markdown(shown)
