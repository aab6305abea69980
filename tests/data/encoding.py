"""Images and Parquet tables as bytes, for small data sets."""

import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def parquet_table(images: Sequence[bytes | None], labels: Sequence[int | None], names: Sequence[str] | None):
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": data, "path": None} for data in images], struct_type)
    table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
    if names is None:
        return table
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
