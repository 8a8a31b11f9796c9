"""Every way to be wrong gets its status and its field within milliseconds, and the next request is served."""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    model_service_pb2,
    sample_pb2,
)
from serving.api.convert.tensors import tensor_of
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS
from tests.serving.api.served import Served


def tensor(array: object, dtype: str = "uint8") -> data_pb2.Tensor:
    return tensor_of(np.asarray(array, dtype))


def digits(rows: int = 1) -> data_pb2.Data:
    return data_pb2.Data(tensor=tensor(np.ones((rows, 1, 8, 8))))


def sample(**fields: Any) -> sample_pb2.SampleRequest:
    return sample_pb2.SampleRequest(**{"model": DIGITS, **fields})


def with_parameters(**fields: Any) -> sample_pb2.SampleRequest:
    return sample(parameters=sample_pb2.SampleParameters(**fields))


def labelled(*ids: int, name: str = "label", **fields: Any) -> sample_pb2.SampleRequest:
    condition = data_pb2.Condition(name=name, labels=data_pb2.Labels(ids=ids))
    return sample(conditions=[condition], **fields)


def likelihood(data: data_pb2.Data | None = None, **fields: Any) -> likelihood_pb2.LikelihoodRequest:
    return likelihood_pb2.LikelihoodRequest(**{"model": DIGITS, "data": data or digits(), **fields})


def scored(array: object, dtype: str = "uint8") -> likelihood_pb2.LikelihoodRequest:
    return likelihood(data_pb2.Data(tensor=tensor(array, dtype)))


def claimed(shape: list[int], content: bytes = b"") -> likelihood_pb2.LikelihoodRequest:
    claim = data_pb2.Tensor(dtype=data_pb2.DATA_TYPE_UINT8, shape=shape, data=content)
    return likelihood(data_pb2.Data(tensor=claim))


def inpaint(mask: data_pb2.Tensor | None, **fields: Any) -> inpaint_pb2.InpaintRequest:
    return inpaint_pb2.InpaintRequest(**{"model": DIGITS, "data": digits(), "observed": mask, **fields})


def text(*texts: str, **fields: Any) -> likelihood_pb2.LikelihoodRequest:
    data = data_pb2.Data(texts=data_pb2.Texts(texts=texts), **fields)
    return likelihood(data, model=LETTERS)


def pictures(*files: bytes) -> likelihood_pb2.LikelihoodRequest:
    return likelihood(data_pb2.Data(images=data_pb2.Images(png=files)))


def cloud(**fields: Any) -> sample_pb2.SampleRequest:
    style = data_pb2.Condition(name="style", **fields)
    return sample_pb2.SampleRequest(model=CLOUD, conditions=[style])


def odd(number: int) -> Any:
    """A number for an enum field that the stubs would not take."""
    return number


NAN = float("nan")

WRONG: dict[str, tuple[str, Message, str]] = {
    "no model": ("Sample", sample(model=""), "model"),
    "no rows": ("Sample", sample(n=0), "n"),
    "negative n": ("Sample", sample(n=-1), "n"),
    "n above the limit": ("Sample", sample(n=65), "n"),
    "rows times completions above the limit": (
        "Inpaint",
        inpaint(tensor(np.ones((8, 8)), "bool"), n=65),
        "n",
    ),
    "row numbers that leave the counter": ("Sample", sample(n=2, first_row=2**32 - 1), "first_row"),
    "unknown sampler": ("Sample", with_parameters(sampler="magic"), "parameters.sampler"),
    "parameter of another method": ("Sample", with_parameters(eta=0.5), "parameters.eta"),
    "parameter of another model": ("Sample", with_parameters(top_k=3), "parameters.top_k"),
    "steps below the range": ("Sample", with_parameters(steps=0), "parameters.steps"),
    "steps above the range": ("Sample", with_parameters(steps=10**6), "parameters.steps"),
    "NaN parameter": ("Sample", with_parameters(guidance_scale=NAN), "parameters.guidance_scale"),
    "infinite parameter": ("Sample", with_parameters(guidance_scale=np.inf), "parameters.guidance_scale"),
    "unknown encoding": ("Sample", sample(encoding=9), "encoding"),
    "text of an image model": ("Sample", sample(encoding=data_pb2.ENCODING_TEXT), "encoding"),
    "pictures of a text model": ("Sample", sample(model=LETTERS, encoding=data_pb2.ENCODING_PNG), "encoding"),
    "prompt of an image model": ("Sample", sample(prompt=digits()), "prompt"),
    "unknown condition": ("Sample", labelled(1, name="colour"), "conditions[0].name"),
    "more conditions than any model has": (
        "Sample",
        sample(conditions=[data_pb2.Condition(name="label")] * 65),
        "conditions",
    ),
    "class out of range": ("Sample", labelled(10), "conditions[0].labels"),
    "negative class": ("Sample", labelled(-1), "conditions[0].labels"),
    "labels for other rows": ("Sample", labelled(1, 2, n=3), "conditions[0].labels"),
    "no label": ("Sample", labelled(), "conditions[0].labels"),
    "condition without a value": (
        "Sample",
        sample(conditions=[data_pb2.Condition(name="label")]),
        "conditions[0].value",
    ),
    "use_null that is false": ("Sample", cloud(use_null=False), "conditions[0].use_null"),
    "null without a null value": ("Sample", cloud(use_null=True), "conditions[0].use_null"),
    "required condition absent": ("Sample", sample(model=CLOUD), "conditions"),
    "condition of wrong shape": ("Sample", cloud(tensor=tensor([[1, 2, 3]], "f4")), "conditions[0].tensor"),
    "condition with NaN": ("Sample", cloud(tensor=tensor([[1, NAN]], "f4")), "conditions[0].tensor.data"),
    "no data": ("Likelihood", likelihood_pb2.LikelihoodRequest(model=DIGITS), "data"),
    "data without a value": ("Likelihood", likelihood(data_pb2.Data(lengths=[1])), "data"),
    "wrong dtype": ("Likelihood", scored(np.ones((1, 1, 8, 8)), "int32"), "data.tensor.dtype"),
    "no dtype": ("Likelihood", likelihood(data_pb2.Data(tensor=data_pb2.Tensor())), "data.tensor.dtype"),
    "wrong shape": ("Likelihood", scored(np.ones((1, 8, 8))), "data.tensor.shape"),
    "empty batch": ("Likelihood", scored(np.ones((0, 1, 8, 8))), "data.tensor.shape"),
    "negative size": ("Likelihood", claimed([1, 1, -8, -8], bytes(64)), "data.tensor.shape"),
    "bytes that do not match": ("Likelihood", claimed([1, 1, 8, 8], bytes(63)), "data.tensor.data"),
    "a gigabyte in ten bytes": ("Likelihood", claimed([1 << 24, 1, 8, 8], b"0123456789"), "data.tensor.data"),
    "a size that overflows": ("Likelihood", claimed([2**62, 2**62, 8, 8], b"0"), "data.tensor.data"),
    "level out of range": ("Likelihood", scored(np.full((1, 1, 8, 8), 17)), "data"),
    "lengths of fixed rows": (
        "Likelihood",
        likelihood(data_pb2.Data(tensor=digits().tensor, lengths=[3])),
        "data.lengths",
    ),
    "rows above the limit": ("Likelihood", likelihood(digits(65)), "data"),
    "no picture": ("Likelihood", pictures(b"GIF89a"), "data.images.png[0]"),
    "empty pictures": ("Likelihood", pictures(), "data.images"),
    "mask where the method takes none": (
        "Likelihood",
        likelihood(observed=tensor(np.ones((8, 8)), "bool")),
        "observed",
    ),
    "unknown dequantization": (
        "Likelihood",
        likelihood(parameters=likelihood_pb2.LikelihoodParameters(dequantization=odd(7))),
        "parameters.dequantization",
    ),
    "dequantization that is not offered": (
        "Likelihood",
        likelihood(parameters=likelihood_pb2.LikelihoodParameters(dequantization=odd(3))),
        "parameters.dequantization",
    ),
    "texts for an image model": (
        "Likelihood",
        likelihood(data_pb2.Data(texts=data_pb2.Texts(texts=["a"]))),
        "data.texts",
    ),
    "empty text": ("Likelihood", text("a", ""), "data.texts[1]"),
    "text too long": ("Likelihood", text("a" * 33), "data.texts[0]"),
    "more texts than rows are allowed": ("Likelihood", text(*["a"] * 65), "data.texts"),
    "one long text that would widen all": (
        "Likelihood",
        text(*["a"] * 63, "a" * 2_000_000),
        "data.texts[63]",
    ),
    "more pictures than rows are allowed": ("Likelihood", pictures(*[b"x"] * 65), "data.images"),
    "a million axes": ("Likelihood", claimed([2**62] * 1_000_000, b"0"), "data.tensor.shape"),
    "empty stop string": (
        "Sample",
        sample(model=LETTERS, parameters=sample_pb2.SampleParameters(stop=["."] * 3 + [""])),
        "parameters.stop",
    ),
    "texts with lengths": ("Likelihood", text("a", lengths=[1]), "data.lengths"),
    "no mask": ("Inpaint", inpaint(None), "observed"),
    "mask of wrong dtype": ("Inpaint", inpaint(tensor(np.ones((8, 8)))), "observed.dtype"),
    "mask of wrong shape": ("Inpaint", inpaint(tensor(np.ones((4, 8)), "bool")), "observed.shape"),
    "mask that is not 0 or 1": (
        "Inpaint",
        inpaint(data_pb2.Tensor(dtype=data_pb2.DATA_TYPE_BOOL, shape=[8, 8], data=b"\x02" * 64)),
        "observed.data",
    ),
    "no completions": ("Inpaint", inpaint(tensor(np.ones((8, 8)), "bool"), n=0), "n"),
    "sampling parameter unknown": (
        "Inpaint",
        inpaint(
            tensor(np.ones((8, 8)), "bool"),
            parameters=inpaint_pb2.InpaintParameters(sampling=sample_pb2.SampleParameters(eta=1.0)),
        ),
        "parameters.sampling.eta",
    ),
    "no latents": ("Decode", latent_pb2.DecodeRequest(model=DIGITS), "latents"),
    "latents of wrong shape": (
        "Decode",
        latent_pb2.DecodeRequest(model=DIGITS, latents=tensor(np.ones((2, 5)), "f4")),
        "latents.shape",
    ),
    "latents with infinity": (
        "Decode",
        latent_pb2.DecodeRequest(model=DIGITS, latents=tensor([[0, 0, 0, np.inf]], "f4")),
        "latents.data",
    ),
    "unknown path": (
        "Interpolate",
        latent_pb2.InterpolateRequest(model=DIGITS, start=digits(), end=digits(), path="scenic"),
        "path",
    ),
    "one end only": ("Interpolate", latent_pb2.InterpolateRequest(model=DIGITS, start=digits()), "end"),
    "ends of other numbers": (
        "Interpolate",
        latent_pb2.InterpolateRequest(model=DIGITS, start=digits(), end=digits(2)),
        "end",
    ),
    "too many points": (
        "Interpolate",
        latent_pb2.InterpolateRequest(model=DIGITS, start=digits(), end=digits(), points=65),
        "points",
    ),
    "unknown anomaly method": (
        "ScoreAnomaly",
        anomaly_pb2.ScoreAnomalyRequest(model=DIGITS, data=digits(), method="nose"),
        "method",
    ),
    "parameter that encode has not": (
        "Encode",
        latent_pb2.EncodeRequest(model=DIGITS, data=digits(), steps=3),
        "steps",
    ),
    "negative page": ("ListModels", model_service_pb2.ListModelsRequest(page_size=-1), "page_size"),
    "page token made up": ("ListModels", model_service_pb2.ListModelsRequest(page_token="x"), "page_token"),
    "self test of nothing": (
        "SelfTest",
        model_service_pb2.SelfTestRequest(model=DIGITS, checks=["x"]),
        "checks[0]",
    ),
}


@pytest.mark.parametrize(("method", "request_message", "field"), WRONG.values(), ids=WRONG.keys())
def test_wrong_value_is_refused_by_field_at_once_and_the_next_request_is_served(
    served: Served, method: str, request_message: Message, field: str
) -> None:
    begun = time.perf_counter()
    refused = served.refused(method, request_message)
    assert time.perf_counter() - begun < 0.5
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refused.fields == (field,)
    assert refused.message.startswith(field)
    assert not served.engine.requests
    served.call("Sample", sample(n=1, seed=1))
