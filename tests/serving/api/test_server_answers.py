"""Every operation over loopback gRPC, through the real server and a fake engine."""

from __future__ import annotations

from pxserve.v1 import model_service_pb2
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS
from tests.serving.api.served import Served


def test_models_are_listed_in_pages_without_capabilities(served: Served) -> None:
    first = served.call("ListModels", model_service_pb2.ListModelsRequest(page_size=2))
    rest = served.call("ListModels", model_service_pb2.ListModelsRequest(page_token=first.next_page_token))
    assert [m.name for m in (*first.models, *rest.models)] == sorted((DIGITS, LETTERS, CLOUD))
    assert not rest.next_page_token
    assert not first.models[0].capabilities


def test_get_model_says_what_can_be_asked(served: Served) -> None:
    model = served.call("GetModel", model_service_pb2.GetModelRequest(model=DIGITS)).model
    assert model.is_default_version
    assert list(model.data.shape) == [1, 8, 8]
    sample = model.capabilities[0]
    assert [method.name for method in sample.methods] == ["ddim", "ddpm"]
    steps = sample.methods[0].parameters[0]
    assert (steps.name, steps.default_value, steps.minimum, steps.maximum) == ("steps", "10", 1, 1000)
