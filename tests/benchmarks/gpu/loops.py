"""Whole loops: DDIM-50 of the CIFAR-10 U-Net and decoding of a GPT-2-sized model, four ways each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kernels.denoise import Coefficients, denoise_step
from kernels.rows import COLUMNS, FIELDS, FIRST, LINE, SCALE, SLOT, TIME, TWIN, denoise_rows
from kernels.token_sampling import sample_tokens
from tests.benchmarks.gpu import others
from tests.benchmarks.gpu.timing import Clock
from tests.benchmarks.networks.decoder import Decoder
from tests.benchmarks.networks.unet import UNet

Network = Callable[..., torch.Tensor]
Step = Callable[[], None]


@dataclass(frozen=True)
class LoopResult:
    """One loop: its rate, in ``unit``, and the largest difference of its result from the eager loop's."""

    model: str
    rows: int
    way: str
    rate: float
    unit: str
    difference: float | None = None
    note: str = ""


def scripted(network: torch.nn.Module, *examples: torch.Tensor) -> Any:
    """A frozen TorchScript trace, as a package would ship it."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), examples, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.freeze(traced)


def replayed(step: Step, device: torch.device) -> Step:
    """``step`` captured in a CUDA graph; it must only touch memory that stays where it is."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Ddim:
    """The schedule of DDPM (Ho et al. 2020) in ``steps`` steps of DDIM (Song et al. 2021, eq. 12, eta 0)."""

    def __init__(self, steps: int, device: torch.device) -> None:
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        times = torch.arange(steps - 1, -1, -1) * (1000 // steps)
        here, before = kept[times], torch.cat((kept[times[1:]], torch.ones(1, dtype=torch.float64)))
        a = ((1 - before) / (1 - here)).sqrt()
        lines = [
            Coefficients(p=float(t**-0.5), q=float(-((1 / t - 1) ** 0.5)), lo=-1.0, hi=1.0, a=float(k),
                         b=float(s**0.5 - k * t**0.5))
            for t, s, k in zip(here, before, a, strict=True)
        ]  # fmt: skip
        self.table = torch.tensor(lines, device=device)  # [steps, 14] float32
        self.times = times.to(device)
        self.kept, self.before = here.tolist(), before.tolist()
        self.steps = steps

    @torch.no_grad()
    def eager(self, network: Network, x: torch.Tensor, update: Callable[..., torch.Tensor]) -> torch.Tensor:
        """As scheduler libraries write it: one set of scalars for all rows."""
        for index in range(self.steps):
            noise = network(x, self.times[index].expand(len(x)))
            x = update(x, noise, self.kept[index], self.before[index])
        return x

    @torch.no_grad()
    def ours(self, network: Network, x: torch.Tensor) -> torch.Tensor:
        """Per-row coefficients, one kernel after the network."""
        for index in range(self.steps):
            noise = network(x, self.times[index].expand(len(x)))
            x, _ = denoise_step(x, noise, self.table[index].expand(len(x), -1))
        return x


def ddim_update(x: torch.Tensor, noise: torch.Tensor, kept: float, before: float) -> torch.Tensor:
    """One DDIM step in torch."""
    x0 = ((x - (1 - kept) ** 0.5 * noise) / kept**0.5).clamp(-1, 1)
    noise = (x - kept**0.5 * x0) / (1 - kept) ** 0.5
    following: torch.Tensor = before**0.5 * x0 + (1 - before) ** 0.5 * noise
    return following


class GraphedDdim:
    """Network and kernel in one CUDA graph, as the engine runs them; every row has a line of its own."""

    def __init__(self, ddim: Ddim, network: Network, x: torch.Tensor) -> None:
        self.ddim, self.network, rows, n = ddim, network, len(x), x[0].numel()
        self.inputs, self.times = x.clone(), ddim.times.new_zeros(rows)
        lines = torch.zeros((ddim.steps, COLUMNS), device=x.device)
        lines[:, : ddim.table.shape[1]], lines[:, TIME], lines[:, SCALE] = ddim.table, ddim.times, 1.0
        positions = torch.zeros((FIELDS, rows), dtype=torch.int64, device=x.device)
        positions[SLOT] = positions[TWIN] = torch.arange(rows, device=x.device)
        flags = torch.zeros(rows, dtype=torch.int32, device=x.device)
        self.state, self.lines, self.positions, self.flags = x.flatten(1).clone(), lines, positions, flags
        self.history = torch.zeros((3, rows, n), device=x.device)
        self.replay = replayed(self.step, x.device) if x.is_cuda else self.step

    @torch.no_grad()
    def step(self) -> None:
        """One tick."""
        noise = self.network(self.inputs, self.times)
        denoise_rows(
            self.state, self.history, self.lines, self.positions, noise.flatten(1),
            self.inputs.view_as(self.state), self.times, self.flags,
        )  # fmt: skip

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.state.copy_(x.flatten(1))
        self.inputs.copy_(x)
        self.times.fill_(self.ddim.times[0])
        self.positions[LINE:FIRST] = 0
        for _ in range(self.ddim.steps):
            self.replay()
        return self.state.view_as(x)


def unet_loops(
    clock: Clock, rows: int, steps: int, channels: tuple[int, ...], compiled: bool
) -> list[LoopResult]:
    """Images/s of each way at one batch size."""
    torch.manual_seed(0)
    network = UNet(channels).to(clock.device).eval()
    ddim = Ddim(steps, clock.device)
    x = torch.randn(rows, 3, 32, 32, device=clock.device)
    traced = scripted(network, x, ddim.times[:1].expand(rows))
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "eager": lambda: ddim.eager(network, x, ddim_update),
        "TorchScript + denoise_step": lambda: ddim.ours(traced, x),
    }
    graphed = GraphedDdim(ddim, traced, x)
    how = "in a CUDA graph" if clock.cuda else "in place"
    ways[f"TorchScript + denoise_rows {how}"] = lambda: graphed(x)
    if compiled:
        fused, update = torch.compile(network, dynamic=False), torch.compile(ddim_update)
        ways["torch.compile"] = lambda: ddim.eager(fused, x, update)
    if (library := others.pipeline(network, ddim.steps, x)) is not None:
        ways["diffusers"] = library
    expected = ways["eager"]()
    return [_timed(clock, "U-Net 35.7M, DDIM", rows, way, call, expected) for way, call in ways.items()]


def _timed(
    clock: Clock, model: str, rows: int, way: str, call: Callable[[], torch.Tensor], expected: torch.Tensor
) -> LoopResult:
    try:
        difference = float((call() - expected).abs().max())
        return LoopResult(model, rows, way, rows / clock.seconds(call), "images/s", difference)
    except Exception as error:  # a way that a toolchain lacks must not end the others
        return LoopResult(model, rows, way, 0.0, "images/s", note=f"{type(error).__name__}: {error}"[:200])


class Decoding:
    """Rows of equal prompts decoded together; state on the device, nothing waited for."""

    def __init__(self, network: Network, cache: torch.Tensor, logits: torch.Tensor, prompt: int) -> None:
        rows, device = len(logits), logits.device
        self.network, self.cache, self.prompt = network, cache, prompt
        self.first = logits.clone()
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self.past = torch.full((rows,), prompt, device=device)
        self.row = torch.arange(rows, device=device)
        self.heat, self.mass = torch.ones(rows, device=device), torch.ones(rows, device=device)
        self.none, self.count = torch.zeros(rows, device=device), torch.full_like(self.row, 50)

    def choose(self, logits: torch.Tensor) -> None:
        """Write the next token of every row."""
        token, _, _ = sample_tokens(
            logits, self.heat, self.count, self.mass, self.none, self.row * 0, self.row, self.past
        )
        self.tokens.copy_(token)

    @torch.no_grad()
    def step(self) -> None:
        """One tick: network, then one kernel."""
        logits = self.network(self.tokens, self.past, self.cache)
        self.past.add_(1)
        self.choose(logits)

    def run(self, step: Step, new: int) -> torch.Tensor:
        """``new`` tokens per row; returns the last."""
        self.past.fill_(self.prompt)
        self.choose(self.first)
        for _ in range(new - 1):
            step()
        return self.tokens.clone()


def decoder_loops(clock: Clock, rows: int, new: int, network: Decoder, prompt: int) -> list[LoopResult]:
    """Tokens/s of each way at one number of rows."""
    vocabulary = network.size.vocabulary
    tokens = torch.randint(0, vocabulary, (rows, prompt), device=clock.device)
    cache = network.cache(rows, prompt + new)
    with torch.no_grad():
        logits = network.prefill(tokens, cache)
    plain = Decoding(network, cache, logits, prompt)
    traced = scripted(network, plain.tokens, plain.past, cache)
    script = Decoding(traced, cache, logits, prompt)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "eager + kernels": lambda: plain.run(plain.step, new),
        "TorchScript + kernels": lambda: script.run(script.step, new),
    }
    if clock.cuda:
        replay = replayed(script.step, clock.device)
        ways["TorchScript + kernels in a CUDA graph"] = lambda: script.run(replay, new)
    if (library := others.generate(network, tokens, new)) is not None:
        ways["transformers generate"] = library
    expected = ways["eager + kernels"]()
    results = []
    for way, call in ways.items():
        different = float((call() != expected).float().mean())
        rate = rows * new / clock.seconds(call)
        results.append(LoopResult("decoder 124M", rows, way, rate, "tokens/s", different))
    return results
