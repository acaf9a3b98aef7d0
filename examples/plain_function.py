"""A plain function: one call captions all photographs. python examples/plain_function.py IMAGE…"""

import sys

from engine import Captioner

if len(sys.argv) < 2:
    sys.exit(__doc__)
paths = sys.argv[1:]
captioner = Captioner()
for path, caption in zip(paths, captioner.caption(paths), strict=True):
    print(path, caption.text, sep="\t")
