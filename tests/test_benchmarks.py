"""The benchmarks' machinery: the gate, the rows, the files, the report. Sizes are tiny and no time is asserted."""

from __future__ import annotations

import itertools
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness, machine, memory_probe, plots, report, run, suites
from benchmarks.suites import memory, models, ops
from benchmarks.suites.chapter_convolutions import CONVOLUTIONS
from d2lkernels.models import build, spec
from d2lkernels.profiling.roofline import Roofline

TIMING = harness.Timing(repeats=3, min_time=0.0, sample_us=1.0, flush_l2=False)
LENET = tuple(layer for layer in ops.LAYERS if layer.name.startswith(("lenet", "overhead")))
CONV = ops.Conv("tiny.conv", 2, 3, 6, 4, 3, padding=1)
POOL = ops.Pool("tiny.pool", "max_pool2d", 2, 3, 6, 2, why="because")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Of tiny work two threads only make a busy machine wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def roofline(one_thread) -> Roofline:
    return Roofline("cpu", quick=True)


def run_all(contests, roofline) -> list[dict]:
    return [row for contest in contests for row in harness.run_contest(contest, TIMING, 1, roofline, "cpu")]


def own(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["provider"] == harness.OURS]


def namespace(**replaced) -> SimpleNamespace:
    """Native functions, some of them replaced."""
    names = ("conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
    return SimpleNamespace(**{name: getattr(F, name) for name in names} | replaced)


def small_net(nn) -> torch.nn.Module:
    layers = nn.Conv2d(1, 3, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 8 * 8, 10)
    return nn.Sequential(*layers)


SMALL = models.Model("small", 3, 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_native_torch_passes_its_own_gate(dtype, roofline):
    settings = suites.Settings(dtype=dtype, smoke=True)
    rows = run_all(ops.contests(settings, ours=F, layers=LENET), roofline)
    assert {row["note"] for row in rows} == {""}
    modes = {(row["op"], row["mode"]) for row in rows}
    assert {("conv2d", mode) for mode in ("forward", "input_grad", "weight_grad")} <= modes
    assert {("max_pool2d", mode) for mode in ("forward", "backward")} <= modes
    for row in rows:
        assert float(row["p20"]) <= float(row["p50"]) <= float(row["p80"])
        assert row["repeats"] >= 3 and row["bytes"] > 0 and row["flops"] > 0
        assert float(row["gflops"]) > 0 and float(row["gbps"]) > 0 and float(row["roofline_pct"]) > 0
        assert math.isfinite(float(row["error"])) and float(row["native_error"]) >= 0
    # The two layouts differ in memory also where there is one channel only, and both are there for both sides.
    assert {(row["provider"], row["layout"]) for row in rows} == {
        (provider, layout) for provider in ("torch", "d2lkernels") for layout in ("nchw", "channels_last")
    }


def test_our_package_passes_the_gate(roofline):
    rows = run_all(ops.contests(suites.Settings(smoke=True), layers=LENET), roofline)
    assert len(own(rows)) == len(rows) / 2 and {row["note"] for row in rows} == {""}


WRONG = {
    "slightly off": lambda *a, **k: F.conv2d(*a, **k) * (1 + 1e-4),
    "one element": lambda *a, **k: F.conv2d(*a, **k).index_fill(0, torch.tensor(0), 0.0),
    "nan": lambda *a, **k: F.conv2d(*a, **k) * math.nan,
    "infinity": lambda *a, **k: F.conv2d(*a, **k) + math.inf,
    "shape": lambda *a, **k: F.conv2d(*a, **k)[:, :1],
    "no bias": lambda bias, **k: F.conv2d(**k),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_refused_and_not_timed(name, roofline):
    contests = ops.contests(
        suites.Settings(pattern=re.compile("forward")), ours=namespace(conv2d=WRONG[name]), layers=[CONV]
    )
    rows = run_all(contests, roofline)
    assert len(own(rows)) == 2
    for row in own(rows):
        assert row["note"].startswith("failed: error") and row["p50"] == "" and row["ratio_to_best_native"] == ""
    assert all(row["p50"] and not row["note"] for row in rows if row["provider"] == harness.EAGER)


def test_a_wrong_gradient_is_refused(roofline):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return input.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    def wrong(input, **arguments):
        return F.max_pool2d(Doubled.apply(input), **arguments)

    rows = own(run_all(ops.contests(suites.Settings(), ours=namespace(max_pool2d=wrong), layers=[POOL]), roofline))
    assert [bool(row["note"]) for row in rows if row["mode"] == "forward"] == [False, False]
    assert [row["note"][:6] for row in rows if row["mode"] == "backward"] == ["failed", "failed"]


def test_what_raises_is_a_failure_of_ours_and_a_skip_of_native(roofline):
    def broken():
        raise RuntimeError("no kernel in /some/where/file.so\nsecond line")

    def skipped():
        raise harness.Skip("no compiler")

    def fine():
        return harness.Runner(lambda: torch.ones(2))

    contestants = [
        harness.Contestant(provider, "nchw", build)
        for provider, build in (
            ("torch", fine),
            ("torch.compile", skipped),
            ("torch x", broken),
            ("d2lkernels", broken),
        )
    ]
    reference = [torch.ones(2, dtype=torch.float64)]
    contest = harness.Contest("op", "case", "forward", "float32", contestants, lambda: reference, floor=1e-6)
    rows = {row["provider"]: row for row in run_all([contest], roofline)}
    assert rows["torch"]["note"] == "" and rows["torch"]["ratio_to_best_native"] == "1.000"
    assert rows["torch.compile"]["note"] == "skipped: no compiler"
    assert rows["torch x"]["note"] == "skipped: RuntimeError: no kernel in file.so"
    assert rows["d2lkernels"]["note"] == "failed: RuntimeError: no kernel in file.so"


def test_contestants_take_turns_in_rotating_order():
    order: list[int] = []

    class Clock(harness.CpuClock):
        def sample(self, run, calls):
            run()
            return 1e9

    def runner(i):
        return harness.Runner(lambda: order.append(i))

    contestant = harness.Contestant("torch", "nchw", lambda: harness.Runner(lambda: None))
    entries = [harness.Entry(contestant, runner(i)) for i in range(3)]
    harness.measure([*entries, harness.Entry(contestant)], TIMING, Clock())
    rounds = [order[i : i + 3] for i in range(9, len(order), 3)]
    assert [sorted(turn) for turn in rounds] == [[0, 1, 2]] * 3
    assert sorted(turn[0] for turn in rounds) == [0, 1, 2]
    assert [len(entry.samples) for entry in entries] == [3, 3, 3]


def entry(provider: str, samples: list[float]) -> harness.Entry:
    contestant = harness.Contestant(provider, "nchw", lambda: harness.Runner(lambda: None))
    return harness.Entry(contestant, error=0.0, native_error=0.0, samples=samples)


@pytest.mark.parametrize(("ours", "ratio", "tie"), [([5, 5, 5], "2.000", 0), ([9, 9.5, 20], "1.053", 1)])
def test_ratio_is_against_the_best_native_and_overlap_is_a_tie(ours, ratio, tie, roofline):
    contest = harness.Contest("op", "case", "forward", "float32", [], list, floor=0.0)
    entries = [entry("torch", [20, 20, 20]), entry("torch.compile", [9, 10, 11]), entry("d2lkernels", ours)]
    rows = harness.rows_of(contest, entries, "warm", 1, roofline)
    assert (rows[2]["ratio_to_best_native"], rows[2]["tie"]) == (ratio, tie)
    assert [row["ratio_to_best_native"] for row in rows[:2]] == ["0.500", "1.000"]


def test_models_agree_and_a_lost_update_is_refused(roofline):
    backend = models.Backend(lambda name: small_net(torch.nn), lambda name: small_net(torch.nn))
    rows = run_all(models.contests(suites.Settings(), backend, [SMALL]), roofline)
    assert {row["note"] for row in rows} == {""}
    assert {row["mode"] for row in rows} == set(models.MODES)
    assert all(row["images"] == 3 and row["flops"] > 0 for row in rows)

    def without_update(name: str) -> torch.nn.Module:
        net = small_net(torch.nn)
        net[0].bias.register_hook(torch.zeros_like)
        return net

    backend = models.Backend(backend.native, without_update)
    rows = own(run_all(models.contests(suites.Settings(), backend, [SMALL]), roofline))
    assert [row["note"][:6] for row in rows if row["mode"] == "train_step"] == ["failed", "failed"]
    assert [row["note"] for row in rows if row["mode"] == "inference"] == ["", ""]


@pytest.fixture
def tiny_suite(monkeypatch):
    """The ops suite over two tiny layers and the native functions, or the functions given."""

    def choose(functions=F):
        original = ops.contests

        def contests(settings):
            return original(settings, ours=functions, layers=[CONV, POOL])

        monkeypatch.setattr(run.suites, "load", lambda name: SimpleNamespace(contests=contests))

    return choose


def test_command_writes_csv_and_merges_filtered_runs(tmp_path, tiny_suite):
    tiny_suite()
    arguments = ["ops", "--smoke", "--threads", "1", "--out", str(tmp_path)]
    assert run.main(arguments) == 0
    path = tmp_path / "ops-cpu-t1.csv"
    rows = run.read(path)
    assert tuple(rows[0]) == run.COLUMNS
    required = """op case mode provider layout dtype threads p20 p50 p80 repeats bytes flops gflops gbps roofline_pct
        error native_error ratio_to_best_native tie note device cores isa python torch d2lkernels commit load malloc
        date"""
    assert set(required.split()) <= set(rows[0])
    assert len(rows) == 5 * 4 and {row["threads"] for row in rows} == {"1"}
    assert rows[0]["torch"] == torch.__version__ and rows[0]["malloc"] and float(rows[0]["peak_gflops"]) > 0
    assert run.main([*arguments, "--filter", "max_pool2d .* backward"]) == 0
    merged = run.read(path)
    assert len(merged) == len(rows) and merged[:16] == rows[:16]
    assert run.main([*arguments, "--filter", "no such case"]) == 2
    assert run.read(path) == merged


def test_command_fails_when_the_gate_does(tmp_path, tiny_suite, capsys):
    tiny_suite(namespace(conv2d=WRONG["nan"]))
    assert run.main(["ops", "--smoke", "--threads", "1", "--out", str(tmp_path)]) == 1
    assert "FAILED conv2d tiny.conv forward" in capsys.readouterr().err
    assert any(row["note"].startswith("failed") for row in run.read(tmp_path / "ops-cpu-t1.csv"))


@pytest.mark.parametrize(
    "arguments", [["--threads", "0"], ["--threads", "many"], ["--repeats", "1"], ["--dtype", "tf32"], ["--dtype", "f8"]]
)
def test_bad_arguments_are_named(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.parse(["ops", *arguments])
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_malloc_settings_are_asked_for_once(monkeypatch):
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("glibc", "2.36"))
    environment = machine.malloc_environment({"A": "b", "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    assert environment == {
        "A": "b",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=4294967296"
        ":glibc.malloc.trim_threshold=8589934592",
    }
    assert machine.malloc_environment(environment) is None
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("", ""))
    assert machine.malloc_environment({}) is None


def test_slug_names_the_processor_only(monkeypatch):
    monkeypatch.setattr(machine, "cpu_name", lambda: "Intel Xeon Platinum 8488C")
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert machine.slug("cpu") == "intel-xeon-platinum-8488c-4-cores"


@pytest.mark.skipif(not memory_probe.CLEAR_REFS.exists(), reason="peaks of resident memory are Linux's")
def test_peak_memory_is_seen_and_what_came_before_is_not():
    size = 64 << 20

    def allocate_and_free() -> None:
        torch.ones(size, dtype=torch.uint8)

    allocate_and_free()
    before = memory_probe.in_use("cpu")
    for run_it, least, most in ((allocate_and_free, 0.9, 1.5), (lambda: None, -0.5, 0.2)):
        peak = memory_probe.peak_during(run_it, "cpu") - before
        assert least * size <= peak <= most * size


@pytest.mark.skipif(not memory_probe.CLEAR_REFS.exists(), reason="peaks of resident memory are Linux's")
def test_memory_suite(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "LAYOUTS", ("channels_last",))
    arguments = ["memory", "--threads", "1", "--out", str(tmp_path), "--filter", "bn_lenet"]
    assert run.main(arguments) == 0
    rows = run.read(tmp_path / "memory-cpu-t1.csv")
    assert [row["provider"] for row in rows] == ["torch", "d2lkernels"]
    for row in rows:
        assert 2 * float(row["parameter_bytes"]) < float(row["peak_bytes"]) < 100e6
    text = report.memory_table(rows)
    assert f"| bn_lenet.b256 | {report.megabytes(rows[0]['parameter_bytes'])} |" in text
    assert f"| {100 * report.memory_share(*rows):.0f} % |" in text
    monkeypatch.setattr(memory, "CASES", (("no.model", models.Model("no", 1, 1)),))
    assert run.main([*arguments[:-1], "no"]) == 1
    assert "failed: " in capsys.readouterr().err


def test_costs():
    conv = ops.Conv("c", 2, 3, 8, 4, 3, padding=1)
    assert conv.cost("forward", 4) == (4 * (2 * 3 * 64 + 2 * 4 * 64 + 4 * 3 * 9 + 4), 2 * 2 * 4 * 64 * 3 * 9)
    assert ops.Conv("stem", 16, 1, 224, 96, 11, stride=4, padding=1).out_size == 54
    pool = ops.Pool("p", "max_pool2d", 2, 3, 8, 2)
    assert pool.cost("forward", 4) == (4 * (384 + 96), 96 * 4)
    assert pool.cost("backward", 4) == (4 * (384 + 96) + 96, 96)
    assert ops.Pool("a", "adaptive_avg_pool2d", 2, 3, 8, 1).cost("forward", 4)[1] == 6 * 64
    for layer in ops.LAYERS:
        tensors = {name: torch.empty(shape, device="meta") for name, shape in layer.shapes().items()}
        outputs = layer.call(F, layer.prepare(tensors) if hasattr(layer, "prepare") else tensors)
        assert outputs.shape == layer.out_shape()


def row(provider: str, p50: str, ratio: str, **more: str) -> dict[str, str]:
    base = dict.fromkeys(run.COLUMNS, "")
    base |= {"op": "conv2d", "case": "tiny.conv", "mode": "forward", "layout": "nchw", "threads": "1"}
    base |= {"device": "Some CPU", "dtype": "float32", "cache": "warm", "provider": provider}
    return base | {"p20": p50, "p50": p50, "p80": p50, "ratio_to_best_native": ratio} | more


def test_report_shows_losses_failures_and_explanations(tmp_path):
    pool = {"op": "max_pool2d", "case": "tiny.pool"}
    rows = [row("torch", "10", "1.000"), row("torch.compile", "8", "1.250"), row("d2lkernels", "16", "0.500")]
    rows += [row("torch", "30", "1.000", **pool), row("d2lkernels", "10", "3.000", **pool)]
    rows += [row("torch", "30", "1.000", mode="x"), row("d2lkernels", "3", "10.000", mode="x")]
    rows += [row("torch", "4", "1.000", mode="y"), row("d2lkernels", "", "", mode="y", note="failed: error 1|2")]
    run.write(tmp_path / "results" / "some-cpu" / "ops-cpu-t1.csv", [], rows)
    text = report.render(
        "a\n<!-- benchmark:ops-cpu -->\nold\n<!-- /benchmark:ops-cpu -->\nb\n"
        "<!-- benchmark:models-cpu -->\n<!-- /benchmark:models-cpu -->\n",
        report.read(tmp_path / "results"),
        {("max_pool2d", "tiny.pool"): "because"},
    )
    assert text.startswith("a\n<!-- benchmark:ops-cpu -->\n**Some CPU, 1 thread") and "old" not in text
    assert "| conv2d | tiny.conv | forward | 8 (torch.compile nchw) | 16 (nchw) | 0.50 |" in text
    assert "| 3.00 [1] |" in text and "[1] because." in text
    assert "| 10.00 [2] |" in text and f"[2] {report.UNEXPLAINED}" in text
    assert "failed: error 1\\|2" in text
    assert "`python benchmarks/run.py models --device cpu` makes them" in text


def test_other_precision_modes_have_files_of_their_own(tmp_path):
    arguments = ["ops", "--smoke", "--threads", "1", "--filter", "^relu mlp.hidden forward", "--out", str(tmp_path)]
    assert run.main(arguments) == 0
    assert run.main([*arguments, "--dtype", "bfloat16"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["ops-cpu-bfloat16-t1.csv", "ops-cpu-t1.csv"]
    assert {row["dtype"] for row in report.read(tmp_path)["ops-cpu"]} == {"float32", "bfloat16"}


def test_models_are_drawn_for_each_precision_mode(tmp_path):
    pytest.importorskip("matplotlib")
    model = {"op": "model", "mode": "train_step"}
    rows = [row("torch", "10", "1.000", **model), row("d2lkernels", "5", "2.000", **model)]
    run.write(tmp_path / "results" / "m" / "models-cpu-t1.csv", [], [*rows, *[r | {"dtype": "bfloat16"} for r in rows]])
    assert plots.main(["--results", str(tmp_path / "results"), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["models-cpu-bfloat16.png", "models-cpu.png"]


def test_report_is_idempotent_and_check_finds_stale_tables(tmp_path, capsys):
    results, readme = tmp_path / "results", tmp_path / "README.md"
    run.write(results / "m" / "ops-cpu-t1.csv", [], [row("torch", "10", "1.000"), row("d2lkernels", "9", "1.111")])
    run.write(results / "m" / "models-cpu-t1.csv", [], [row("torch", "10", "1.000", op="model")])
    markers = "<!-- benchmark:ops-cpu -->\n<!-- /benchmark:ops-cpu -->\n"
    readme.write_text(f"# x\n{markers}{markers.replace('mark:', 'mark-summary:')}tail\n")
    arguments = [str(readme), "--results", str(results)]
    assert report.main([*arguments, "--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert report.main(arguments) == 0
    assert "no markers for: models-cpu" in capsys.readouterr().err
    written = readme.read_text()
    assert written.count("1.11") > 2 and written.endswith("tail\n")
    assert "| `conv2d` forward | 1.11 (lowest 1.11; 0 of 1 slower) |" in written
    assert report.main([*arguments, "--check"]) == 0 and report.main(arguments) == 0
    assert readme.read_text() == written
    readme.write_text(written.replace("1.11", "9.99"))
    assert report.main([*arguments, "--check"]) == 1


def test_short_form_for_models(tmp_path):
    model = {"op": "model", "mode": "train_step"}
    rows = [
        one
        for case, ratio in (("a.b4", "2.000"), ("b.b8", "0.500"), ("a.b1", "9.000"))
        for one in (row("torch", "4", "1.000", case=case, **model), row("d2lkernels", "2", ratio, case=case, **model))
    ]
    text = report.short_table(rows)
    assert "| `b.b8` training step / inference | 0.50 |" in text
    assert "| geometric mean without batch 1 | 1.00 |" in text


def test_every_chapter_convolution_has_a_case():
    """The table is what the models contain: shapes, names by order of execution, and the chapter's batch."""
    found: dict[tuple[int, ...], tuple[str, int]] = {}
    for case in models.MODELS:
        chapter_batch = spec(case.name).defaults.batch_size
        with torch.device("meta"):
            model = build(case.name, nn=torch.nn).eval()
        count = itertools.count(1)

        def record(conv, inputs, output, name=case.name, count=count, chapter_batch=chapter_batch):
            shape = (*inputs[0].shape[1:3], output.shape[1], conv.kernel_size[0], conv.stride[0], conv.padding[0])
            number = next(count)
            found.setdefault(shape, (f"{name}.conv{number}", chapter_batch))

        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(record)
        model(torch.empty(1, 1, case.size, case.size, device="meta"))
    table = {tuple(shape): (name, chapter_batch) for name, _, chapter_batch, *shape in CONVOLUTIONS}
    assert table == found and len(table) == len(CONVOLUTIONS)


def test_every_suite_loads_and_explains_its_cases():
    explanations = suites.explanations()
    assert {(layer.op, layer.name) for layer in ops.LAYERS} <= set(explanations)
    assert {("model", model.case) for model in models.MODELS} <= set(explanations)
