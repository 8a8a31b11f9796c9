"""Whatever any method is sent, it says what is wrong with it; nothing breaks, and nothing stays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.demo.server import Running
from pxserve import Client
from pxserve.v1 import generative_service_pb2, model_service_pb2
from serving.api.inference import open_inference_pb2
from tests.reliability.messages import damaged, messages
from tests.reliability.observed import Footprint, assert_empty, assert_no_leak, footprint
from tests.reliability.record import Figure, Record
from tests.reliability.right import varied

pytestmark = [pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

NEVER = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
TIMEOUT_S = 0.4
MEMORY_MIB = 150.0
MODELS = ("digits-diffusion", "digits-vae", "digits-gan", "text-autoregressive")
WORDS = (
    *MODELS, "label", "ddim", "heun", "elbo", "iwae", "smc", "typicality", "slerp", "The ", "", "liveness",
    "model/digits-vae", "pxserve.v1.GenerativeService", "operation", "sample", "likelihood", "inpaint", "n",
    "steps", "sampler", "seed", "data", "prompt", "latents", "observed", "UINT8", "FP32", "BYTES", "BOOL",
)  # fmt: skip
SERVICES: tuple[ServiceDescriptor, ...] = (
    generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
SHORT, LONG = 12, 10_000


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


def payloads(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """Bytes of all sorts: random, any message of the type, almost right ones, and damaged ones."""
    whole = messages(descriptor, WORDS).map(lambda message: message.SerializeToString())
    close = whole
    if descriptor.fields:
        close = varied(descriptor, WORDS).map(lambda message: message.SerializeToString())
    return st.binary(max_size=60) | whole | close | close | damaged(whole) | damaged(close)


def asked(channel: grpc.Channel, method: MethodDescriptor, payload: bytes) -> grpc.StatusCode:
    """The status of one call, read to its end."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming:
            talk: Any = channel.stream_stream(path)
            list(talk(iter([payload]), timeout=TIMEOUT_S))
        elif method.server_streaming:
            listen: Any = channel.unary_stream(path)
            list(listen(payload, timeout=TIMEOUT_S))
        else:
            call: Any = channel.unary_unary(path)
            call(payload, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def fuzz(channel: grpc.Channel, method: MethodDescriptor, examples: int) -> Counter[str]:
    """Send that many; statuses by name. INTERNAL and UNKNOWN fail at the example that brought them."""
    found: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(payload=payloads(method.input_type))
    def send(payload: bytes) -> None:
        code = asked(channel, method, payload)
        found[code.name] += 1
        assert code not in NEVER, f"{method.full_name} {payload!r}"

    send()
    return found


def footprint_of_all(running: Running) -> Footprint:
    """With the models loaded that some input may have unloaded: each has threads and memory of its own."""
    with Client(running.target, timeout_s=60.0) as client:
        for name in MODELS:
            client.load_model(name, wait=True)
    return footprint(running)


def still_well(running: Running, before: Footprint) -> None:
    """The server answers as ever, and keeps nothing of all that."""
    footprint_of_all(running)
    with Client(running.target, timeout_s=60.0) as client:
        assert client.sample("digits-diffusion", 2, seed=1, steps=5).data.shape == (2, 1, 8, 8)
    assert_empty(running)
    assert_no_leak(running, before, MEMORY_MIB)


def test_a_few_inputs_to_every_method_break_nothing(server: Running, channel: grpc.Channel) -> None:
    for method in METHODS:  # the first few allocate buffers that stay
        fuzz(channel, method, 3)
    before = footprint_of_all(server)
    for method in METHODS:
        fuzz(channel, method, SHORT)
    still_well(server, before)


@pytest.mark.reliability
@pytest.mark.timeout(3600)
def test_ten_thousand_inputs_break_nothing(server: Running, channel: grpc.Channel, record: Record) -> None:
    each = -(-LONG // len(METHODS))
    for method in METHODS:
        fuzz(channel, method, 50)
    before, begun = footprint_of_all(server), time.monotonic()
    found: Counter[str] = Counter()
    for method in METHODS:
        found += fuzz(channel, method, each)
    still_well(server, before)
    after = footprint(server)
    record(
        "Fuzzing of every message of every method",
        [
            Figure("inputs", found.total(), "", LONG),
            Figure("INTERNAL or UNKNOWN", sum(found[code.name] for code in NEVER), "", 0, "at most"),
            Figure("answered OK", found["OK"]),
            Figure("INVALID_ARGUMENT", found["INVALID_ARGUMENT"]),
            Figure(
                "memory afterwards minus before",
                after.memory_mib - before.memory_mib,
                "MiB",
                MEMORY_MIB,
                "at most",
            ),
            Figure("open files afterwards minus before", after.files - before.files, "", 2, "at most"),
            Figure("inputs per second", found.total() / (time.monotonic() - begun), "/s"),
        ],
        f"{len(METHODS)} methods of {len(SERVICES)} services, LoadModel and UnloadModel among them; "
        "random bytes, messages made from the descriptors, right ones with a field or two changed, and "
        "damaged ones. Afterwards the engine holds no row "
        "and no second of work.",
    )
