"""SelfTest: runs the checks of serving.selftest through the same engine as every request, and converts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from pxserve.v1 import model_service_pb2
from serving.api.ask import Asking
from serving.api.convert.provenance import provenance_of
from serving.api.ports import Engine
from serving.api.resolve.request import SEED_BITS
from serving.api.rpc import Call
from serving.engine.messages import Usage
from serving.families.request import Operation, Request
from serving.families.result import Result
from serving.repository.loader import LoadedModel
from serving.selftest.check import Check, Verdict
from serving.selftest.registry import check_names, run_checks
from serving.selftest.subject import MOST_ROWS, Subject


class SelfTest:
    """Answers SelfTest requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(
        self, loaded: LoadedModel, names: tuple[str, ...], seed: int | None, call: Call
    ) -> model_service_pb2.SelfTestResponse:
        """The checks named, or all; InvalidArgument for a name that is none."""
        check_names(names)
        seed = secrets.randbits(SEED_BITS) if seed is None else seed
        asker = _Asker(self._engine, loaded, call)
        most_rows = min(MOST_ROWS, loaded.max_rows_per_request)
        bitwise = loaded.determinism == "batch_invariant"
        subject = Subject(loaded.spec, loaded.capabilities, asker.ask, seed, bitwise, most_rows)
        checks = [_message(check) for check in await run_checks(subject, names)]
        request = Request(Operation.SAMPLE, "self_test", {}, seed, 0, 1)
        provenance = provenance_of(loaded, request, {}, asker.usage, call.request_id)
        return model_service_pb2.SelfTestResponse(checks=checks, provenance=provenance)


@dataclass
class _Asker:
    """Asks one model, and adds up what that costs."""

    engine: Engine
    loaded: LoadedModel
    call: Call
    usage: Usage = field(default=Usage(0, 0.0, 0.0))

    async def ask(self, request: Request) -> Result:
        """The answer; raises ServingError."""
        call = self.call
        options = call.asker.options(request_id=call.request_id, deadline_s=call.deadline_s)
        finished = await Asking(self.engine).answer(self.loaded.key, request, options)
        self.usage = Usage(
            self.usage.network_evaluations + finished.usage.network_evaluations,
            self.usage.device_seconds + finished.usage.device_seconds,
            self.usage.queue_seconds + finished.usage.queue_seconds,
        )
        return finished.result


def _message(check: Check) -> model_service_pb2.Check:
    return model_service_pb2.Check(
        name=check.name,
        verdict=_VERDICTS[check.verdict],
        holds_for_any_weights=check.holds_for_any_weights,
        statistic=check.statistic,
        p_value=check.p_value,
        detail=check.detail,
    )


_VERDICTS = {
    Verdict.NOT_APPLICABLE: model_service_pb2.VERDICT_NOT_APPLICABLE,
    Verdict.PASS: model_service_pb2.VERDICT_PASS,
    Verdict.FAIL: model_service_pb2.VERDICT_FAIL,
}
