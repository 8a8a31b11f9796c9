"""GPUs, by NVIDIA's DCGM exporter with its file dcp-metrics-included.csv, as the GPU operator runs it."""

from __future__ import annotations

from deploy.grafana.model import Dashboard, Panel, Query, Row, Variable

# Not by Hostname, which newer exporters write with a small h; one exporter runs on each node.
NODE = Variable("node", "label_values(DCGM_FI_DEV_FB_USED, instance)")
GPU = Variable("gpu", 'label_values(DCGM_FI_DEV_FB_USED{instance=~"$node"}, gpu)', "GPU")
NAME = "{{instance}} GPU {{gpu}}"
MIB = 1024 * 1024


def gpu(field: str) -> str:
    """A field of the chosen GPUs."""
    return f'DCGM_FI_{field}{{instance=~"$node",gpu=~"$gpu"}}'


USE = Row(
    "Is the GPU the bottleneck?",
    (
        Panel(
            "Kernels running",
            "percent",
            "Share of the time with any kernel on the GPU. 100 % says busy, not efficient. Low while "
            "latency is high: look at the host (overview: CPU, event loop lag).",
            (Query(gpu("DEV_GPU_UTIL"), NAME),),
            most=100,
        ),
        Panel(
            "Compute engine active",
            "percentunit",
            "The same from hardware counters, finer in time.",
            (Query(gpu("PROF_GR_ENGINE_ACTIVE"), NAME),),
            most=1,
        ),
        Panel(
            "Tensor cores active",
            "percentunit",
            "High: matrix work, as it should be for large networks. Low with busy kernels: small batches, or "
            "memory bound.",
            (Query(gpu("PROF_PIPE_TENSOR_ACTIVE"), NAME),),
            most=1,
        ),
        Panel(
            "Memory interface active",
            "percentunit",
            "Near 80 %: memory bound. Decoding of tokens is, and gains from larger batches; denoising of "
            "large images should not be.",
            (Query(gpu("PROF_DRAM_ACTIVE"), NAME),),
            most=1,
        ),
        Panel(
            "PCIe traffic",
            "Bps",
            "Host to device and back. It should be small: samples, prompts. Large and steady: something "
            "copies state that should stay on the device.",
            (
                Query(gpu("PROF_PCIE_RX_BYTES"), f"to {NAME}"),
                Query(gpu("PROF_PCIE_TX_BYTES"), f"from {NAME}"),
            ),
        ),
        Panel(
            "Clock",
            "hertz",
            "A clock that falls under load: throttled by heat or power, and every step takes longer.",
            (Query(f"{gpu('DEV_SM_CLOCK')} * 1000000", NAME),),
        ),
    ),
)

LIMITS = Row(
    "Limits",
    (
        Panel(
            "Memory used",
            "bytes",
            "With what is free beside it: does the next model fit?",
            (
                Query(f"{gpu('DEV_FB_USED')} * {MIB}", f"used {NAME}"),
                Query(f"{gpu('DEV_FB_FREE')} * {MIB}", f"free {NAME}"),
            ),
            stacked=True,
        ),
        Panel(
            "Temperature",
            "celsius",
            "Above about 85 °C most boards slow down.",
            (Query(gpu("DEV_GPU_TEMP"), NAME),),
            limits=(80, 88),
        ),
        Panel(
            "Power", "watt", "At the board's limit the clock falls.", (Query(gpu("DEV_POWER_USAGE"), NAME),)
        ),
        Panel(
            "Energy per answered row",
            "joule",
            "All chosen GPUs over all answered rows of all models on them, or not: meaningful where pxserve "
            "has the GPUs to itself.",
            (
                Query(
                    f"sum(rate({gpu('DEV_TOTAL_ENERGY_CONSUMPTION')}[$__rate_interval])) / 1000 / "
                    "(sum(rate(pxserve_rows_total[$__rate_interval])) > 0)",
                    "J per row",
                ),
            ),
        ),
        Panel(
            "Last error (XID)",
            "none",
            "0 is none. 79: the GPU has fallen off the bus; 48, 63, 64, 94, 95: memory errors; 13, 31: a "
            "kernel's.",
            (Query(gpu("DEV_XID_ERRORS"), NAME),),
            "stat",
            limits=(1, 32),
        ),
        Panel(
            "PCIe replays",
            "ops",
            "Anything but 0 for long: a bad riser, cable or slot.",
            (Query(f"rate({gpu('DEV_PCIE_REPLAY_COUNTER')}[$__rate_interval])", NAME),),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="pxserve-gpu",
    title="pxserve / GPU",
    what="NVIDIA GPUs by DCGM exporter: is the GPU the bottleneck, and what limits it?",
    rows=(USE, LIMITS),
    variables=(NODE, GPU),
)
