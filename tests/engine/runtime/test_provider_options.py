"""The options that each provider gets, in ONNX Runtime's names."""

import json
from dataclasses import replace

import pytest

from engine import OptionsError, RuntimeOptions
from engine.runtime.providers import PROVIDERS
from tests.engine.runtime.fake_runtime import ENCODER, STEP


def test_cuda_gets_device_memory_convolution_search_and_tf32() -> None:
    cuda = PROVIDERS["cuda"].options
    assert cuda(RuntimeOptions(), ENCODER) == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    chosen = RuntimeOptions(device_id=2, gpu_memory_limit=1 << 30, cudnn_conv_algo_search="EXHAUSTIVE", tf32=True)
    assert cuda(chosen, ENCODER) == {
        "device_id": "2",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1073741824",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1",
    }


def test_only_the_graphs_that_run_often_are_captured_and_only_on_request() -> None:
    cuda = PROVIDERS["cuda"].options
    on = RuntimeOptions(cuda_graphs=True)
    start = replace(ENCODER, graph="decoder_init")
    assert [cuda(on, graph).get("enable_cuda_graph") for graph in (ENCODER, STEP, start)] == ["1", "1", None]
    assert "enable_cuda_graph" not in cuda(RuntimeOptions(), STEP)


def test_tensorrt_gets_device_precision_and_profiles() -> None:
    tensorrt = PROVIDERS["tensorrt"].options
    assert tensorrt(RuntimeOptions(device_id=1, profile_images=(1, 4, 8)), ENCODER) == {
        "device_id": "1",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_profile_min_shapes": "pixels:1x8x8x3",
        "trt_profile_opt_shapes": "pixels:4x8x8x3",
        "trt_profile_max_shapes": "pixels:8x8x8x3",
    }
    modes = [
        (options["trt_fp16_enable"], options["trt_int8_enable"])
        for options in (
            tensorrt(RuntimeOptions(fp16=True), ENCODER),
            tensorrt(RuntimeOptions(), replace(ENCODER, precision="fp16")),
            tensorrt(RuntimeOptions(), replace(ENCODER, precision="int8")),
        )
    ]
    assert modes == [("1", "0"), ("1", "0"), ("0", "1")]


def test_a_profile_is_that_of_the_batches_and_one_for_smaller_batches_is_refused() -> None:
    assert RuntimeOptions().for_batches(40).profile_images == (1, 48, 48)
    assert RuntimeOptions(profile_images=(1, 24, 24)).for_batches(20).profile_images == (1, 24, 24)
    with pytest.raises(
        OptionsError, match=r"profile_images must be a profile whose last number is at least 24, for batch_size=20"
    ):
        RuntimeOptions(profile_images=(1, 20, 20)).for_batches(20)


def test_tensorrt_rtx_gets_device_and_profiles() -> None:
    assert PROVIDERS["tensorrt-rtx"].options(RuntimeOptions(device_id=3, profile_images=(2, 4, 8)), ENCODER) == {
        "device_id": "3",
        "nv_profile_min_shapes": "pixels:2x8x8x3",
        "nv_profile_opt_shapes": "pixels:4x8x8x3",
        "nv_profile_max_shapes": "pixels:8x8x8x3",
    }


def test_openvino_computes_in_f32_on_the_threads_given() -> None:
    openvino = PROVIDERS["openvino"].options
    plain, three = openvino(RuntimeOptions(), STEP), openvino(RuntimeOptions(threads=3), STEP)
    assert plain["device_type"] == three["device_type"] == "CPU"
    assert json.loads(plain["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}
    assert json.loads(three["load_config"])["CPU"]["INFERENCE_NUM_THREADS"] == 3
