"""Changes the bundle while requests are running: python examples/rolling_out.py OLD NEW IMAGE…"""

import sys

from engine import Captioner, Scheduler

if len(sys.argv) < 4:
    sys.exit(__doc__)
old, new, *paths = sys.argv[1:]
with Scheduler(Captioner(old)) as scheduler:
    before = [scheduler.submit(path) for path in paths]
    scheduler.swap(new)  # opens it and warms it up in this thread; requests go on meanwhile
    after = [scheduler.submit(path) for path in paths]
    for path, first, second in zip(paths, before, after, strict=True):
        print(path, first.result().text, second.result().text, sep="\t")
