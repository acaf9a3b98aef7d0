"""A client of a Triton server with the repository that `python -m serving.triton_repository` writes.

python examples/triton_client.py HOST:PORT IMAGE…
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

if len(sys.argv) < 3:
    sys.exit(__doc__)
address, *paths = sys.argv[1:]
files = np.array([[Path(path).read_bytes()] for path in paths], np.object_)  # (images, 1)
image = triton.InferInput("image", list(files.shape), "BYTES")
image.set_data_from_numpy(files)
with triton.InferenceServerClient(address) as client:
    result = client.infer("captions", [image], parameters={"decoding": "beam", "beam_size": 3})
for path, text in zip(paths, result.as_numpy("caption")[:, 0], strict=True):
    print(path, text.decode(), sep="\t")
