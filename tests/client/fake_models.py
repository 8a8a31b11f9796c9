"""What the fake server says of its models."""

from __future__ import annotations

from pxserve.v1 import data_pb2, model_pb2

DIGITS = model_pb2.Model(
    name="digits",
    version=3,
    is_default_version=True,
    state=model_pb2.MODEL_STATE_READY,
    family="diffusion",
    data=model_pb2.DataSpec(
        kind="image",
        axes=["channel", "height", "width"],
        shape=[1, 8, 8],
        dtype=data_pb2.DATA_TYPE_UINT8,
        levels=17,
    ),
    latent=model_pb2.DataSpec(kind="vector", axes=["feature"], shape=[4], dtype=data_pb2.DATA_TYPE_FLOAT32),
    conditions=[
        model_pb2.ConditionSpec(name="digit", kind="class", classes=10, when_absent="null", has_null=True)
    ],
    capabilities=[
        model_pb2.Capability(
            operation=model_pb2.OPERATION_SAMPLE,
            supported=True,
            methods=[
                model_pb2.Method(
                    name="ddpm",
                    kind="DISCRETIZED",
                    is_default=True,
                    row_seconds=0.01,
                    parameters=[
                        model_pb2.Parameter(
                            name="steps", type="int", default_value="100", minimum=1, maximum=100
                        )
                    ],
                )
            ],
        ),
        model_pb2.Capability(
            operation=model_pb2.OPERATION_LIKELIHOOD, supported=False, reason="ask digits-vae instead"
        ),
    ],
    max_rows_per_request=64,
    max_message_bytes=4 << 20,
)
TEXT = model_pb2.Model(
    name="text",
    version=1,
    is_default_version=True,
    state=model_pb2.MODEL_STATE_READY,
    family="autoregressive",
    data=model_pb2.DataSpec(
        kind="tokens",
        axes=["position"],
        shape=[-1],
        dtype=data_pb2.DATA_TYPE_INT32,
        levels=256,
        has_tokenizer=True,
        max_length=128,
    ),
)
