"""SelfTest: what a model answers, held against what it must answer whatever its weights are."""

from __future__ import annotations

import secrets

from pxserve.v1 import model_service_pb2
from serving.api.checks import CHECKS, Asker, Finding
from serving.api.convert.provenance import provenance_of
from serving.api.ports import Engine
from serving.api.resolve.request import SEED_BITS
from serving.api.rpc import Call
from serving.errors import FailedPrecondition, invalid
from serving.families.request import Operation, Request
from serving.repository.loader import LoadedModel


class SelfTest:
    """Runs checks through the same engine as every request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(
        self, loaded: LoadedModel, names: tuple[str, ...], seed: int | None, call: Call
    ) -> model_service_pb2.SelfTestResponse:
        """The checks named, or all; InvalidArgument for a name that is none."""
        for index, name in enumerate(names):
            if name not in CHECKS:
                raise invalid(f"checks[{index}]", f"{name!r} is none of {', '.join(CHECKS)}")
        seed = secrets.randbits(SEED_BITS) if seed is None else seed
        asker = Asker(self._engine, loaded, seed, call)
        checks = [await self._check(name, asker) for name in names or CHECKS]
        request = Request(Operation.SAMPLE, "self_test", {}, seed, 0, 1)
        provenance = provenance_of(loaded, request, {}, asker.usage, call.request_id)
        return model_service_pb2.SelfTestResponse(checks=checks, provenance=provenance)

    async def _check(self, name: str, asker: Asker) -> model_service_pb2.Check:
        check = CHECKS[name]
        try:
            finding = await check.run(asker)
        except FailedPrecondition as error:
            finding = Finding(None, 0.0, error.message)
        return model_service_pb2.Check(
            name=name,
            verdict=_VERDICTS[finding.holds],
            holds_for_any_weights=check.for_any_weights,
            statistic=finding.statistic,
            detail=finding.detail,
        )


_VERDICTS = {
    None: model_service_pb2.VERDICT_NOT_APPLICABLE,
    True: model_service_pb2.VERDICT_PASS,
    False: model_service_pb2.VERDICT_FAIL,
}
