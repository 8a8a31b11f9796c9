"""Ahead-of-time compilation to a cubin, with no GPU, and what the machine code says about itself."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Build:
    """One kernel as it would be launched: argument types by name, constants by name, aligned integers."""

    module: str
    kernel: str
    types: dict[str, str]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    aligned: tuple[str, ...] = ()
    fusion: bool = True


@dataclass(frozen=True)
class MachineCode:
    """Registers per thread, bytes of stack (spills), bytes of shared memory, instructions by name."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: Counter[str] = field(default_factory=Counter)

    def count(self, prefix: str) -> int:
        """Instructions whose name begins with ``prefix``."""
        return sum(number for name, number in self.instructions.items() if name.startswith(prefix))

    @property
    def spills(self) -> int:
        """Loads and stores of local memory."""
        return self.count("LDL") + self.count("STL")


def compile_for(build: Build, architecture: int) -> MachineCode:
    """Compile for compute capability ``architecture`` (80, 90, 100)."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(build.module), build.kernel)
    function = getattr(kernel, "compiled", kernel)
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        if name in build.constants:
            signature[name], constants[(index,)] = "constexpr", build.constants[name]
            continue
        signature[name] = build.types[name]
        if signature[name].startswith("*") or name in build.aligned:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": build.warps, "num_stages": build.stages, "enable_fp_fusion": build.fusion}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    return _read(compiled.asm["cubin"], int(compiled.metadata.shared), Path(triton.__file__).parent)


def _read(cubin: bytes, shared_bytes: int, triton: Path) -> MachineCode:
    tools = triton / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.check_output([tools / "cuobjdump", "-res-usage", file.name], text=True)
        code = subprocess.check_output([tools / "nvdisasm", "-c", file.name], text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    names = re.findall(r"^\s+(?:/\*\w+\*/)?\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]+)", code, re.MULTILINE)
    return MachineCode(int(found[1]), int(found[2]), shared_bytes, Counter(names))
