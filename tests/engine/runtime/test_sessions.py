"""Sessions: one provider each, with threads that are counted, and a warning of what falls back to the host."""

from pathlib import Path

import pytest

from engine import RuntimeOptions
from engine.bundle.bundle import Bundle
from engine.runtime import options, sessions
from engine.runtime.graphs import Graphs
from engine.runtime.placement import Placement
from engine.runtime.providers import PROVIDERS
from engine.runtime.sessions import open_session
from tests.engine.runtime.fake_runtime import CPU, ENCODER, TENSORRT, FakeRuntime, Install


def test_a_session_gets_its_provider_alone_with_its_options(install: Install) -> None:
    install(FakeRuntime(("CUDAExecutionProvider", CPU)))
    runtime = RuntimeOptions(threads=3, device_id=1)
    session = open_session(Path("bundle"), ENCODER, PROVIDERS["cuda"], runtime)
    assert session.providers == [("CUDAExecutionProvider", PROVIDERS["cuda"].options(runtime, ENCODER))]
    assert Path(session.path) == Path("bundle/encoder.onnx")
    assert session.settings.intra_op_num_threads == 3


def test_threads_are_counted_and_not_left_to_onnx_runtime_which_would_tie_them_to_cores(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "whole_cores", lambda: 3)
    for asked, threads in ((0, 3), (1, 1)):
        graphs = Graphs(Bundle.load(tiny_bundle), Placement.of("cpu"), "fp32", RuntimeOptions(threads=asked))
        assert graphs.session("search_step").get_session_options().intra_op_num_threads == threads
        assert graphs.session("search_step") is graphs.session("search_step")


def test_two_threads_of_one_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, siblings in enumerate(("0,4", "1,5", "2", "3", "0,4", "1,5")):
        (tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}/topology/thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(options, "SIBLINGS", tmp_path)
    count = options.whole_cores
    for allowed, whole in (({0, 1, 2, 3, 4, 5}, 4), ({0, 4}, 1), ({3}, 1), ({1, 2}, 2)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, allowed=allowed: allowed, raising=False)
        assert count() == whole
    monkeypatch.setattr(options, "SIBLINGS", tmp_path / "nothing")
    assert count() == options.cores() == 2


def test_what_tensorrt_refuses_runs_on_cuda(cache: Path, install: Install) -> None:
    install(FakeRuntime(TENSORRT))
    session = open_session(cache.parent, ENCODER, PROVIDERS["tensorrt"], RuntimeOptions(device_id=1))
    assert [name for name, _ in session.providers] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert [options["device_id"] for _, options in session.providers] == ["1", "1"]


def test_nodes_that_a_device_leaves_to_the_host_are_named(install: Install) -> None:
    runtime = install(FakeRuntime(("CUDAExecutionProvider", CPU)))
    cuda, options = PROVIDERS["cuda"], RuntimeOptions()
    runtime.assigned = {"CUDAExecutionProvider": ["Conv", "TopK"], CPU: ["Shape"]}
    session = open_session(Path("bundle"), ENCODER, cuda, options)
    assert session.settings.entries["session.record_ep_graph_assignment_info"] == "1"
    runtime.assigned[CPU] += ["TopK", "Gather", "TopK"]
    with pytest.warns(RuntimeWarning, match="'cuda' runs Gather, TopK of encoder.onnx on the host"):
        open_session(Path("bundle"), ENCODER, cuda, options)
    runtime.assigned = {CPU: ["Gather"]}
    open_session(Path("bundle"), ENCODER, PROVIDERS["cpu"], options)  # there they belong


@pytest.mark.parametrize(
    ("version", "entries"),
    [
        ("1.24.1", {"session.intra_op.allow_spinning": "0"}),
        ("1.26.0", {"session.intra_op.spin_duration_us": "200"}),
        ("1.32.0rc1", {"session.intra_op.spin_duration_us": "200"}),
    ],
)
def test_threads_do_not_spin_on_when_a_run_is_over(version: str, entries: dict[str, str], install: Install) -> None:
    runtime = install(FakeRuntime())
    runtime.__version__ = version
    opened = open_session(Path("bundle"), ENCODER, PROVIDERS["cpu"], RuntimeOptions())
    assert opened.settings.entries == entries
