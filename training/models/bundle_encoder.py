"""The encoder of a bundle, for what is trained on its features. Knows nothing of training."""

from pathlib import Path

import torch
from torch import Tensor, nn

from engine.bundle.bundle import Bundle
from training.models.encoders import Encoder


class BundleEncoder(Encoder):
    """Runs the encoder's graph in fp32 on the CPU; features of the run that it was exported from are its own too.

    vocabulary: the bundle's.
    """

    compilable = False

    def __init__(self, path: Path) -> None:
        """Raises BundleError."""
        nn.Module.__init__(self)
        import onnxruntime  # not needed for training on a GPU

        bundle = Bundle.load(path)
        manifest, graph = bundle.manifest, bundle.graph("encoder")
        self.name, self.weights, self.image, self.grid = manifest.encoder, manifest.name, manifest.image, False
        self.fingerprint = str(manifest.provenance.get("encoder", {}).get("fingerprint", graph.sha256))
        self.output_shape = manifest.feature_shape
        self.vocabulary = bundle.vocabulary
        self.register_buffer("mean", torch.tensor(manifest.image.mean), persistent=False)  # on the device of the rest
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        self._session = onnxruntime.InferenceSession(
            str(bundle.path / graph.file), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns float32 (batch, *output_shape) for uint8 pixels (batch, height, width, 3)."""
        return torch.from_numpy(self._session.run(["features"], {"pixels": pixels.cpu().numpy()})[0])
