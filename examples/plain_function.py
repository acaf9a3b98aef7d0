"""A plain function: one call captions all photographs named on the command line."""

import sys

from engine import Captioner

paths = sys.argv[1:]
captioner = Captioner()
for path, caption in zip(paths, captioner.caption(paths), strict=True):
    print(path, caption.text, sep="\t")
