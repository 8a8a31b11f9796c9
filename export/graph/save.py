"""ONNX graphs as files: small ones whole, large ones with their weights in a file beside them.

Weights beside a graph are mapped into memory by the runtime, so that a server starts without reading them
twice, and a graph may be larger than protobuf's 2 GiB.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import (
    ExternalDataInfo,
    convert_model_to_external_data,
    uses_external_data,
)

from export.graph.onnx import to_bytes

INLINE_BYTES = 256 << 20  # a larger graph keeps its weights outside
LEAST_EXTERNAL_BYTES = 1024  # of one tensor: constants stay inside, where shapes are inferred from them


def save_onnx(model: onnx.ModelProto, folder: Path, file: str, inline_bytes: int = INLINE_BYTES) -> list[str]:
    """Write ``folder/file``, and ``folder/file.data`` where the weights are large; the names written.

    The names belong into ``files`` of the package. Weights that already lie outside stay where they are, and
    their files are named too.
    OSError passes through.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    outside = {ExternalDataInfo(t).location for t in model.graph.initializer if uses_external_data(t)}
    if outside or model.ByteSize() <= inline_bytes:
        path.write_bytes(to_bytes(model))
        return [file, *((Path(file).parent / location).as_posix() for location in sorted(outside))]
    location = f"{Path(file).name}.data"
    convert_model_to_external_data(
        model, all_tensors_to_one_file=True, location=location, size_threshold=LEAST_EXTERNAL_BYTES
    )
    path.with_name(location).unlink(missing_ok=True)  # tensors are appended
    onnx.save_model(model, path)
    path.with_name(location).chmod(path.stat().st_mode & 0o777)  # it is written for its owner alone
    return [file, (Path(file).parent / location).as_posix()]
