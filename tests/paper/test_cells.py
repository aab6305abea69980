"""A cell is measured once, and again when what it depends on has changed."""

from idm_ray.paper.cells import CellStore, pooled


def test_a_cell_is_measured_once(tmp_path, cell):
    measured = []

    def measure():
        measured.append(1)
        return [cell("DM", "convnet", (41.0, 42.0))]

    first = CellStore(tmp_path).kept("one", ["key"], measure)
    again = CellStore(tmp_path).kept("one", ["key"], measure)
    assert first == again
    assert len(measured) == 1
    assert again[0].runs == (41.0, 42.0)
    assert set(again[0].versions) >= {"idm_ray", "torch", "python"}
    CellStore(tmp_path).kept("one", ["another key"], measure)
    assert len(measured) == 2


def test_cells_of_one_place_are_pooled(cell):
    cells = pooled([cell("DM", 5, (40.0,)), cell("IDM", 5, (50.0,)), cell("DM", 5, (44.0,))])
    assert [(each.row, each.runs) for each in cells] == [("DM", (40.0, 44.0)), ("IDM", (50.0,))]
    assert (cells[0].mean, cells[0].std, cells[0].evaluate_seconds) == (42.0, 2.0, 4.0)


def test_a_failed_trial_of_a_pooled_cell_is_still_told(cell):
    failed = cell("DM", 5, (), error="S is not finite")
    for cells in ([failed, cell("DM", 5, (40.0,), epochs=7)], [cell("DM", 5, (40.0,), epochs=7), failed]):
        (one,) = pooled(cells)
        assert (one.runs, one.epochs, one.error) == ((40.0,), 7, "S is not finite")


def test_a_failed_cell_has_no_mean(cell):
    raw = cell("DM", runs=(), error="S is not finite").to_raw()
    assert (raw["mean"], raw["std"], raw["error"]) == (None, None, "S is not finite")
