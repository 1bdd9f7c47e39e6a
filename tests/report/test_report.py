import base64
import dataclasses
import functools
import io
import math
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from children import PATIENCE
from matplotlib.colors import to_hex
from matplotlib.image import imread

import refinejax
from refinejax import Status, plot
from refinejax.apps.metalens.figures import MARKS, maps
from refinejax.apps.metalens.report import rmse_measure
from refinejax.batch import BatchResult
from refinejax.physics import metalens
from refinejax.physics.noise import PhaseNoise, apply_noise
from refinejax.report import (
    Picture,
    Presentation,
    Section,
    choose_samples,
    number,
    paragraph,
    table,
    write_report,
)
from refinejax.report.numbers import row_format

SIZE, SAMPLES, PARAMS = 24, 7, 5
FILES = ("worst", "median", "best", "before_after", "convergence", "statuses")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SINGLE = jnp.array([60.0, -40.0, 12.0, 0.55, 40.0])
predict = jax.jit(metalens.wrapped_phase, static_argnums=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lenses:
    """A result and its presentation, in one place, so that a test changes either by name."""

    observed: Any
    predicted: Any
    names: Any
    units: Any
    initial: Any
    params: Any
    rmse: Any
    initial_rmse: Any
    status: Any
    steps: Any
    std: Any
    truth: Any
    trace: Any
    margins: Any
    method: str
    title: str
    notes: Any


def write(folder, data, dpi=50):  # coarse figures: most of the time is spent on pixels
    result = BatchResult(
        params=data.params,
        loss=np.square(data.rmse),
        initial_loss=np.square(data.initial_rmse),
        steps=data.steps,
        status=data.status,
        std=data.std,
        margins=data.margins,
        method=data.method,
        notes=tuple(data.notes),
    )
    about = Presentation(
        title=data.title,
        names=data.names,
        units=data.units,
        initial=data.initial,
        truth=data.truth,
        measure=rmse_measure(data.initial_rmse, data.rmse),
        trace=data.trace,
        picture=lambda i: maps(data.observed(i), data.predicted(i), title=f"Sample {i}"),
        picture_text="Observed, predicted and residual phase",
    )
    return write_report(folder, result, about, dpi=dpi)


@pytest.fixture(scope="module")
def data():
    """Noisy maps with missing pixels, params near the truth, and one sample of every fate."""
    rng = np.random.default_rng(0)
    truth = np.asarray(SINGLE) * (1 + 0.05 * rng.normal(size=(SAMPLES, PARAMS)))
    noisy = jax.jit(apply_noise)
    phases = [jnp.asarray(metalens.phase(jnp.asarray(p), SIZE)) for p in truth]
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    observed = np.array(
        [
            noisy(PhaseNoise.only("sinusoid", "grain", "dead"), *pair)
            for pair in zip(keys, phases, strict=True)
        ]
    )
    observed[:, 3:6, 10:14] = np.nan
    params = truth * (1 + 1e-4 * rng.normal(size=truth.shape))
    std = np.abs(1e-3 * truth)
    std[:, 3] = np.nan
    status = np.array([1, 2, 2, 6, 5, -2, 1], np.int8)
    rmse = np.array([0.2, 0.4, 0.3, 0.7, 0.5, np.nan, 0.25])
    return Lenses(
        observed=lambda i: observed[i],
        predicted=lambda i: predict(jnp.asarray(params[i]), SIZE),
        names=metalens.NAMES,
        units=metalens.UNITS,
        initial=1.01 * truth,
        params=params,
        std=std,
        truth=truth,
        rmse=rmse,
        initial_rmse=np.linspace(0.9, 1.8, SAMPLES),
        status=status,
        steps=np.arange(SAMPLES),
        method="lbfgs: chosen",
        trace=np.exp(-np.arange(11) * rng.uniform(0.1, 0.5, (SAMPLES, 1))),
        title="Maps",
        margins={"rung": np.array([0.5, 4, np.nan, 12.25, 2, np.nan, 8])},
        notes=["wavelength unknown: only ratios of the params are determined"],
    )


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "made" / "if missing"
    assert write(folder, data, 200) == folder / "index.html"
    return folder


def take(data, samples, **changes):
    """The report of some of the samples."""
    rows = ("initial", "params", "std", "truth", "rmse", "initial_rmse", "status", "steps")
    values = {name: getattr(data, name)[samples] for name in rows}
    values["margins"] = {name: margin[samples] for name, margin in data.margins.items()}
    return dataclasses.replace(data, **{**values, **changes})


class Page(HTMLParser):
    """The text, images, tables and tags of a page; insists that tags are balanced."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.rows = [], [], [], []
        self.attributes, self.texts = [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, name, which=0):
        """The cells of the row with this first cell."""
        return [row[1:] for row in self.rows if row[0] == name][which]


def read(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def assert_drawn(image):
    assert image.shape[0] > 100
    assert image.shape[1] > 100
    assert np.std(image[..., :3]) > 0.02


# --- figures ---------------------------------------------------------------------------------


def test_before_after_shows_every_finite_sample():
    before, after = np.array([1.8, 1.0, 2.0, np.nan, 1.0]), np.array([0.1, 0.2, np.nan, 0.3, 0.0])
    figure: Any = plot.before_after(before, after, marks=MARKS)
    left, right = figure.axes
    points = left.collections[0].get_offsets()
    np.testing.assert_allclose(points[:2], [[1.8, 0.1], [1.0, 0.2]])
    assert 0 < points[2, 1] < 0.1  # a perfect fit is at the lower edge, and within it
    assert left.get_ylim()[0] < points[2, 1]
    assert left.get_xscale() == left.get_yscale() == right.get_xscale() == "log"
    assert "5 samples" in figure.get_suptitle()
    assert "2 not finite" in figure.get_suptitle()
    level = math.pi / math.sqrt(3)
    assert any(np.allclose(line.get_xdata(), level) for line in right.lines)
    for axis in "xy":
        assert any(np.allclose(getattr(line, f"get_{axis}data")(), level) for line in left.lines)
    diagonal = next(line for line in left.lines if line.get_label() == "unchanged")
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_before_after_histograms_count_the_samples():
    before, after = np.full(30, 1.5), np.geomspace(1e-3, 1.0, 30)
    right: Any = plot.before_after(before, after, marks=MARKS).axes[1]
    heights = [patch.get_path().vertices[:, 1].max() for patch in right.patches]
    assert heights[0] == 30
    assert 1 <= heights[1] < 30


def test_before_after_of_very_many_samples_draws_their_density():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.5, 2.0, 20_000)
    figure: Any = plot.before_after(before, before * rng.uniform(1e-3, 1, before.size))
    hexes = figure.axes[0].collections[0]
    assert hexes.get_array().sum() == before.size


@pytest.mark.parametrize("values", [np.full(4, np.nan), np.zeros(4), np.full(1, 1e-7)])
def test_before_after_of_odd_values_is_drawn(values):
    assert_drawn(imread(io.BytesIO(plot.png(plot.before_after(values, values), 60))))


def test_convergence_draws_the_median_and_the_band(data):
    ax: Any = plot.convergence(data.trace).axes[0]
    low, middle, high = np.quantile(data.trace, [0.1, 0.5, 0.9], axis=0)
    line = next(line for line in ax.lines if line.get_label() == "median")
    np.testing.assert_allclose(line.get_xdata(), np.arange(11))
    np.testing.assert_allclose(line.get_ydata(), middle)
    corners = ax.collections[0].get_paths()[0].vertices
    expected = {(x, y) for edge in (low, high) for x, y in enumerate(edge)}
    found = {(round(x), y) for x, y in corners}
    assert all(min(abs(y - z) for w, z in found if w == x) < 1e-12 for x, y in expected)
    assert ax.get_yscale() == "log"


def test_convergence_keeps_the_last_value_of_a_sample_that_ended():
    trace = np.array([[1.0, 0.5, np.nan, np.nan], [1.0, 0.8, 0.6, 0.4], [np.nan] * 4])
    line: Any = plot.convergence(trace).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [1.0, 0.65, 0.55, 0.45])


@pytest.mark.parametrize("trace", [np.ones((1, 1)), np.full((2, 3), np.nan), np.zeros((2, 3))])
def test_convergence_of_odd_traces_is_drawn(trace):
    assert_drawn(imread(io.BytesIO(plot.png(plot.convergence(trace), 60))))


@pytest.mark.parametrize("trace", [np.ones(3), np.ones((0, 3)), np.ones((3, 0))])
def test_convergence_refuses_what_is_no_trace(trace):
    with pytest.raises(ValueError, match="trace: expected shape"):
        plot.convergence(trace)


def test_statuses_count_and_color(data):
    figure: Any = plot.statuses(data.status)
    ax = figure.axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    widths = [bar.get_width() for bar in ax.patches]
    assert dict(zip(names, widths, strict=True)) == {
        "CONVERGED_GRAD": 2,
        "CONVERGED_LOSS": 2,
        "STALLED": 1,
        "MAX_STEPS": 1,
        "NONFINITE": 1,
    }
    colors = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colors == [plot.GROUPS[plot.group_of(Status[name])] for name in names]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["converged", "not converged", "failed"]


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_group(status):
    group = plot.group_of(status)
    assert group in plot.GROUPS
    assert (group == "converged") == status.converged
    assert (group == "failed") == (status < 0)


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="99"):
        plot.statuses([1, 99])


def test_drawing_changes_no_setting(data):
    before = dict(matplotlib.rcParams)
    first = plot.png(plot.statuses(data.status))
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "savefig.bbox": "tight", "axes.facecolor": "red"}):
        assert plot.png(plot.statuses(data.status)) == first


def test_needs_matplotlib_only_to_draw_and_never_pyplot():
    script = (
        "import sys, refinejax.report\n"
        "from refinejax import plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot.png(plot.statuses([1]))\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {
        key: os.environ[key] for key in os.environ if key not in ("DISPLAY", "MPLBACKEND")
    }
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=PATIENCE)


def test_without_matplotlib_says_what_to_install(monkeypatch, data, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"refinejax\[plot\]"):
        write(tmp_path / "report", data)
    assert not (tmp_path / "report").exists()


# --- the report ------------------------------------------------------------------------------


def test_writes_the_figures(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}.png" for name in FILES] + ["index.html"]
    )
    for name in FILES:
        assert_drawn(imread(folder / f"{name}.png"))


def test_page_is_self_contained(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert "http://" not in text
    assert "https://" not in text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not {"href", "srcset", "onload"} & set(page.attributes)
    prefix = "data:image/png;base64,"
    contents = [base64.b64decode(image["src"].removeprefix(prefix)) for image in page.images]
    assert all(image["src"].startswith(prefix) for image in page.images)
    assert all(image["alt"] for image in page.images)
    assert set(contents) == {(folder / f"{name}.png").read_bytes() for name in FILES}


def test_summary_table(folder, data):
    page = read(folder)
    finite = data.rmse[np.isfinite(data.rmse)]
    quantiles = [f"{x:#.3g}" for x in np.quantile(finite, [0, 0.1, 0.5, 0.9, 1])]
    assert page.row("residual RMSE after [rad]") == [*quantiles, "1"]
    assert page.row("steps") == ["0", "0.6", "3", "5.4", "6", "0"]
    assert f"{100 * 4 / 7:.3g} %" in page.texts["dd"]
    assert page.texts["dd"][0] == "7"
    assert data.notes[0] in page.texts["li"]
    assert any(refinejax.__version__ in text for text in page.texts["footer"])


def test_statuses_table_explains(folder):
    row = read(folder).row("CONVERGED_LOSS")
    assert row[:2] == ["2", "28.6 %"]
    assert row[2] == Status.CONVERGED_LOSS.explain().replace("`", "")


def test_params_table(folder, data):
    page = read(folder)
    head = ["unit", "initial", "refined", "± std", "truth", "refined − truth"]
    assert page.row("parameter") == head
    best = 0
    unit, initial, refined, std, truth, error = page.row("yc", which=2)
    assert unit == "µm"
    number = lambda text: float(text.replace("−", "-"))  # noqa: E731
    for text, expected in ((initial, data.initial), (refined, data.params), (truth, data.truth)):
        assert number(text) == pytest.approx(expected[best, 1], abs=5e-4)
        assert text.startswith("−")
        assert len(text.split(".")[1]) == 3  # two digits of the standard deviation, 0.04
    assert number(std) == pytest.approx(data.std[best, 1], abs=5e-4)
    assert number(error) == pytest.approx((data.params - data.truth)[best, 1], abs=6e-4)
    assert page.row("wavelength")[3] == "—"  # its standard deviation is NaN


def test_sections_of_the_three_samples(folder, data):
    titles = read(folder).texts["h2"]
    assert titles[-3:] == [
        "Worst sample: number 5",
        "Median sample: number 1",
        "Best sample: number 0",
    ]


@pytest.mark.parametrize(
    ("rmse", "status", "worst", "median", "best"),
    [
        ([0.3, 0.1, 0.2], [1, 1, 1], 0, 2, 1),
        ([0.3, np.nan, 0.2], [1, 1, 6], 1, 0, 2),
        ([0.3, np.inf, np.nan], [1, -2, 1], 2, 1, 0),
        ([0.3, 0.1, 0.2], [1, -4, 1], 1, 0, 2),
        ([0.2], [1], 0, 0, 0),
        ([0.2, 0.1], [1, 1], 0, 1, 1),
        ([np.nan] * 3, [-1] * 3, 2, 1, 0),
    ],
)
def test_choose_samples(rmse, status, worst, median, best):
    assert choose_samples(rmse, status) == {"worst": worst, "median": median, "best": best}


def test_everything_is_escaped(data, tmp_path):
    evil = "<script>alert(1)</script> & \"q\" 'q' $\\frac{ \udcff"
    changes = {"title": evil, "method": evil, "notes": [evil]}
    write(tmp_path, take(data, [0], names=[evil] * PARAMS, units=[evil] * PARAMS, **changes))
    page = read(tmp_path)
    shown = evil.replace("\udcff", "?")
    assert "script" not in page.tags
    assert page.texts["h1"] == page.texts["title"] == page.texts["li"] == [shown]
    assert page.row(shown)[0] == shown


def test_one_sample_without_std_truth_and_trace(data, tmp_path):
    (tmp_path / "convergence.png").write_bytes(b"of an earlier report")
    write(tmp_path, take(data, [1], std=None, truth=None, trace=None, method="", notes=()))
    page = read(tmp_path)
    assert page.texts["h2"][-1] == "Worst, median and best sample: number 0"
    assert page.row("parameter") == ["unit", "initial", "refined", "± std"]
    assert {page.row(name)[3] for name in data.names} == {"—"}
    assert not (tmp_path / "convergence.png").exists()
    images = [(tmp_path / f"{name}.png").read_bytes() for name in ("worst", "median", "best")]
    assert len(set(images)) == 1
    assert len(page.images) == 3


def test_all_failed(data, tmp_path):
    nothing = np.full(2, np.nan)
    changes = {"rmse": nothing, "initial_rmse": nothing, "status": np.full(2, -1)}
    changes |= {"params": np.full((2, PARAMS), np.inf), "trace": np.full((2, 4), np.nan)}
    broken = lambda i: np.full((SIZE, SIZE), np.nan)  # noqa: E731
    write(tmp_path, take(data, [0, 1], predicted=broken, **changes))
    page = read(tmp_path)
    assert page.row("residual RMSE after [rad]") == ["—"] * 5 + ["2"]
    assert page.row("xc")[2] == "—"
    assert "0 %" in page.texts["dd"]
    assert "— → —" in page.texts["dd"]
    cells = {cell for row in page.rows for cell in row}
    assert not {"nan", "inf", "−inf"} & {cell.lower() for cell in cells}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rmse": np.zeros(0)}, r"after: expected shape \(7,\), got \(0,\)"),
        ({"status": np.zeros(0)}, "result: empty batch"),
        ({"status": np.zeros(3)}, r"params: expected shape \(3, 5\), got \(7, 5\)"),
        ({"status": np.int8(1)}, "result: expected a sample axis"),
        ({"std": np.zeros((7, 4))}, r"std: expected shape \(7, 5\)"),
        ({"units": ("µm",)}, r"units: expected shape \(5,\)"),
        ({"status": np.full(SAMPLES, 99)}, "99"),
        ({"predicted": lambda i: np.zeros((2, 2))}, "predicted: shape"),
    ],
)
def test_refuses_what_does_not_fit_and_writes_nothing(data, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "report", dataclasses.replace(data, **change))
    assert not (tmp_path / "report").exists()


def test_an_interrupted_write_leaves_the_old_page_whole(data, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("old")

    def fail(source, destination):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, take(data, [0]))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "old"


@pytest.mark.parametrize(
    ("values", "std", "shown"),
    [
        ([267.6312, -0.00001], np.nan, ["267.63", "0.00"]),
        ([267.6312, -1.5], 0.0012, ["267.6312", "−1.5000"]),
        ([267.6312, -1.5], 3000.0, ["267.63", "−1.50"]),
        ([1.5e-9, np.nan], 1e-12, ["1.5000e−09", "—"]),
        ([0.0, 0.0], np.nan, ["0", "0"]),
        ([np.inf, np.nan], np.inf, ["—", "—"]),
    ],
)
def test_numbers_of_a_row_have_the_same_digits(values, std, shown):
    form = row_format(values, std)
    assert [number(value, form) for value in values] == shown


# --- any problem -------------------------------------------------------------------------------


def decay(params, times):
    return params["height"] * jnp.exp(-params["rate"] * times)


@pytest.fixture(scope="module")
def decays():
    """A result of `refine`, of params that are no lens: a dictionary."""
    times = np.linspace(0, 3, 20)
    rng = np.random.default_rng(0)
    truth = {"height": rng.uniform(1, 2, 6), "rate": rng.uniform(0.5, 2, 6)}
    observed = truth["height"][:, None] * np.exp(-truth["rate"][:, None] * times)
    observed += 0.01 * rng.normal(size=observed.shape)
    initial = {"height": np.ones(6), "rate": np.ones(6)}
    model = functools.partial(decay, times=times)
    return refinejax.refine(model, observed, initial), truth


def test_a_plain_result_of_any_problem(decays, tmp_path):
    result, _ = decays
    write_report(tmp_path, result, dpi=50)
    page = read(tmp_path)
    values = [f"{x:#.3g}" for x in np.quantile(result.loss, [0, 0.1, 0.5, 0.9, 1])]
    assert [cell.replace("−", "-") for cell in page.row("loss after")] == [*values, "0"]
    assert page.row("parameter") == ["unit", "refined", "± std"]
    best = choose_samples(result.loss, result.status)["best"]
    shown = float(page.row("height", which=-1)[1])
    assert shown == pytest.approx(result.params["height"][best], rel=1e-4)
    assert page.row("rate", which=-1)[2] == "—"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["before_after.png", "index.html", "statuses.png"]
    words = (tmp_path / "index.html").read_text().lower()
    assert not {"phase", "lens", "rung", "rad]"} & set(words.split())


def test_covariance_gives_errors_and_a_figure(decays, tmp_path):
    result, truth = decays
    covariance = result.covariance()
    about = Presentation(covariance=covariance, truth=truth, initial=result.params)
    write_report(tmp_path, result, about, dpi=50)
    page = read(tmp_path)
    worst = choose_samples(result.loss, result.status)["worst"]
    std = covariance.std[worst, 1]
    row = page.row("rate", which=0)
    assert float(row[3]) == pytest.approx(std, rel=0.1)
    assert float(row[4]) == pytest.approx(truth["rate"][worst], rel=1e-3)
    assert_drawn(imread(tmp_path / "covariance.png"))


def test_sections_of_an_application(decays, tmp_path):
    picture = Picture(plot.statuses([1]), ("mine",), "My figure")
    rows = [("first", "1"), ("second", "2")]
    mine = Section("My <own>", [paragraph("a < b"), table(("", "value"), rows), picture])
    write_report(tmp_path, decays[0], Presentation(sections=[mine]), dpi=50)
    page = read(tmp_path)
    assert page.texts["h2"][2] == "My <own>"
    assert "a < b" in page.texts["p"]
    assert page.row("second") == ["2"]
    assert [image["alt"] for image in page.images][2] == "My figure"
    assert (tmp_path / "mine.png").exists()
    twice = Presentation(sections=[mine, mine])
    with pytest.raises(ValueError, match="two figures are named 'mine'"):
        write_report(tmp_path / "other", decays[0], twice, dpi=50)


def test_negative_losses_have_linear_axes(tmp_path):
    before, after = np.array([-1.0, 0.5, 3.0]), np.array([-2.5, -0.5, 0.0])
    figure: Any = plot.before_after(before, after)
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == right.get_xscale() == "linear"
    np.testing.assert_allclose(left.collections[0].get_offsets(), np.stack([before, after], 1))
    assert left.get_ylim()[0] < -2.5
    trace: Any = plot.convergence(np.stack([before, after], axis=1)).axes[0]
    assert trace.get_yscale() == "linear"
    assert trace.get_ylabel() == "loss"


def browser():
    """A Chromium that starts; on some systems the command only tells where to get one."""
    for path in filter(None, map(shutil.which, BROWSERS)):
        if not subprocess.run(
            [path, "--version"], capture_output=True, timeout=PATIENCE
        ).returncode:
            return path
    pytest.skip("no Chromium on this machine")


def test_opens_in_a_browser(folder, tmp_path):
    chromium = browser()
    screenshot = tmp_path / "page.png"
    switches = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run")
    quiet = ("disable-background-networking", "disable-component-update", "disable-sync")
    options = [f"--{name}" for name in (*switches, *quiet, "window-size=1100,1600")]
    places = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={screenshot}"]
    page = (folder / "index.html").as_uri()
    command = [chromium, *options, *places, page]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    assert_drawn(imread(screenshot))
