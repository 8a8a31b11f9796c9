"""Health, loading and unloading at run time, draining, a lost engine, reflection."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pxserve.v1 import model_pb2, model_service_pb2, sample_pb2
from serving.api.app import App
from serving.config import Config, ConfigError
from tests.serving.api.fake_models import DIGITS, models_in, read_fake
from tests.serving.api.served import Served
from tests.serving.api.test_streams import wait_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SAMPLE = sample_pb2.SampleRequest(model=DIGITS)


def health(served: Served, service: str = "") -> int:
    status: int = served.call("Check", health_pb2.HealthCheckRequest(service=service)).status
    return status


def state_of(served: Served, name: str, version: int | None = None) -> Any:
    return served.call("GetModel", model_service_pb2.GetModelRequest(model=name, version=version)).model.state


def test_health_knows_process_liveness_services_and_models(served: Served) -> None:
    for service in ("", "liveness", f"model/{DIGITS}", "pxserve.v1.GenerativeService"):
        assert health(served, service) == SERVING
    refused = served.refused("Check", health_pb2.HealthCheckRequest(service="model/nobody"))
    assert refused.code is grpc.StatusCode.NOT_FOUND


def test_watch_tells_changes_and_knows_unknown_names(own: Served) -> None:
    watching = own.stream("Watch", health_pb2.HealthCheckRequest(service=f"model/{DIGITS}"))
    assert next(watching).status == SERVING
    own.call("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
    assert next(watching).status == NOT_SERVING
    unknown = own.stream("Watch", health_pb2.HealthCheckRequest(service="model/nobody"))
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_port_opens_first_and_says_not_serving_while_models_load(tmp_path: Path) -> None:
    served = Served(models_in(tmp_path / "models"))
    served.engine.slow_load = threading.Event()
    served.begin_only()
    try:
        assert health(served) == NOT_SERVING
        assert health(served, "liveness") == SERVING
        refused = served.refused("Sample", SAMPLE)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_READY")
        served.engine.slow_load.set()
        wait_for(lambda: health(served) == SERVING)
        served.call("Sample", SAMPLE)
    finally:
        served.end()


def test_unload_and_load_are_idempotent_and_say_the_state(own: Served) -> None:
    for _ in range(2):
        answer = own.call("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
        assert answer.model.state == model_pb2.MODEL_STATE_UNLOADED
    assert len(own.engine.unloaded) == 1
    assert own.refused("Sample", SAMPLE).reason == "NOT_READY"
    for _ in range(2):
        answer = own.call("LoadModel", model_service_pb2.LoadModelRequest(model=DIGITS, wait=True))
        assert answer.model.state == model_pb2.MODEL_STATE_READY
    own.call("Sample", SAMPLE)


def test_load_without_wait_returns_at_once(own: Served) -> None:
    own.call("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
    own.engine.slow_load = threading.Event()
    answer = own.call("LoadModel", model_service_pb2.LoadModelRequest(model=DIGITS))
    assert answer.model.state == model_pb2.MODEL_STATE_LOADING
    own.engine.slow_load.set()
    wait_for(lambda: state_of(own, DIGITS) == model_pb2.MODEL_STATE_READY)


def test_a_model_is_said_to_warm_while_its_networks_run(own: Served) -> None:
    own.call("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
    own.engine.slow_warming = threading.Event()
    own.call("LoadModel", model_service_pb2.LoadModelRequest(model=DIGITS))
    wait_for(lambda: state_of(own, DIGITS) == model_pb2.MODEL_STATE_WARMING)
    assert own.refused("Sample", SAMPLE).metadata["state"] == "WARMING"
    assert health(own, f"model/{DIGITS}") == NOT_SERVING
    own.engine.slow_warming.set()
    wait_for(lambda: state_of(own, DIGITS) == model_pb2.MODEL_STATE_READY)


def test_unloading_waits_for_the_requests_of_the_model_and_refuses_new_ones(own: Served) -> None:
    own.engine.hangs = True
    running = own.future("Sample", SAMPLE)
    wait_for(lambda: own.engine.tickets)
    unloading = own.future("UnloadModel", model_service_pb2.UnloadModelRequest(model=DIGITS))
    wait_for(lambda: state_of(own, DIGITS) == model_pb2.MODEL_STATE_UNLOADING)
    assert own.refused("Sample", SAMPLE).reason == "NOT_READY"
    assert not own.engine.unloaded
    own.engine.tickets[0].finish()
    assert running.result(5.0)
    assert unloading.result(5.0)
    assert len(own.engine.unloaded) == 1


def test_new_version_of_the_folder_becomes_the_default(own: Served, tmp_path: Path) -> None:
    models_in(tmp_path / "models", f"{DIGITS}/2")
    own.call("LoadModel", model_service_pb2.LoadModelRequest(model=DIGITS, wait=True))
    assert own.call("Sample", SAMPLE).provenance.version == 2
    pinned = sample_pb2.SampleRequest(model=DIGITS, version=1)
    assert own.call("Sample", pinned).provenance.version == 1


def test_broken_package_fails_alone_and_says_why(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models", f"{DIGITS}/1", "broken/1")) as served:
        model = served.call("GetModel", model_service_pb2.GetModelRequest(model="broken")).model
        assert model.state == model_pb2.MODEL_STATE_FAILED
        assert model.state_message == "model.yaml: it is no package. Export it again [MISSING_KEY]"
        assert health(served) == SERVING
        served.call("Sample", SAMPLE)


def test_a_model_whose_other_version_answers_does_not_unready_the_process(tmp_path: Path) -> None:
    models = models_in(tmp_path / "models", f"{DIGITS}/1")
    with Served(models, require_models=True, version_policy="latest:1") as served:
        assert health(served) == SERVING


def test_require_models_unreadies_the_process_for_a_broken_package(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models", "broken/1"), require_models=True) as served:
        assert health(served) == NOT_SERVING


def test_drain_finishes_calls_in_flight_and_refuses_new_ones(tmp_path: Path) -> None:
    served = Served(models_in(tmp_path / "models"))
    with served:
        served.engine.hangs = True
        running = served.future("Sample", SAMPLE)
        wait_for(lambda: served.engine.tickets)
        ending = served.begin(served.app.shut_down())
        wait_for(lambda: health(served) == NOT_SERVING)
        refused = served.refused("Sample", SAMPLE)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert not running.done()
        served.engine.tickets[0].finish()
        assert running.result(5.0)
        ending.result(10.0)


def test_drain_ends_in_flight_calls_after_its_time(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), drain_s=0.3) as served:
        served.engine.hangs = True
        running = served.future("Sample", SAMPLE)
        wait_for(lambda: served.engine.tickets)
        begun = time.monotonic()
        served.do(served.app.shut_down())
        assert 0.3 <= time.monotonic() - begun < 3.0
        assert running.exception(5.0) is not None


def test_a_second_signal_does_not_wait_for_what_is_in_flight(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), drain_s=60.0) as served:
        served.engine.hangs = True
        running = served.future("Sample", SAMPLE)
        wait_for(lambda: served.engine.tickets)
        ending = served.begin(served.app.shut_down())
        wait_for(lambda: health(served) == NOT_SERVING)
        begun = time.monotonic()
        served.loop.call_soon_threadsafe(served.app.hurry.set)
        ending.result(5.0)
        assert time.monotonic() - begun < 4.0
        assert running.exception(5.0) is not None


def test_lost_engine_ends_the_process_with_status_one(tmp_path: Path) -> None:
    served = Served(models_in(tmp_path / "models"))
    served.begin_only(run=True)
    wait_for(lambda: health(served) == SERVING)
    served.engine.alive = False
    wait_for(lambda: served.running is not None and served.running.done())
    assert served.running is not None
    assert served.running.result() == 1
    served.end(shut_down=False)


def test_reflection_lists_the_services_unless_turned_off(served: Served, tmp_path: Path) -> None:
    def services(channel: grpc.Channel) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = stub.ServerReflectionInfo(iter([asked]))
        return {service.name for service in answer.list_services_response.service}

    assert services(served.channel) == {
        "pxserve.v1.GenerativeService",
        "pxserve.v1.ModelService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    with Served(models_in(tmp_path / "models"), no_reflection=True) as closed:
        with pytest.raises(grpc.RpcError) as caught:
            services(closed.channel)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_refuses_bytes_that_do_not_parse(served: Served) -> None:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    call: Any = served.channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff"])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_taken_port_is_a_config_error(served: Served) -> None:
    async def again() -> None:
        config = Config(models=".", listen=f"127.0.0.1:{served.app.port}", metrics="")
        App(config, served.engine, served.metrics, read_fake)

    with pytest.raises(ConfigError, match="listen"):
        asyncio.run(again())


def test_metrics_are_served_over_http(tmp_path: Path) -> None:
    import urllib.request

    with Served(models_in(tmp_path / "models"), metrics="127.0.0.1:0") as served:
        served.call("Sample", SAMPLE)
        with urllib.request.urlopen(f"http://127.0.0.1:{served.app.metrics_port}/metrics") as page:
            text = page.read().decode()
    assert f'pxserve_request_seconds_count{{code="OK",model="{DIGITS}",operation="sample"}} 1.0' in text
    assert "pxserve_models_ready 3.0" in text
