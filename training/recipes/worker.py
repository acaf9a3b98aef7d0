"""A stage's process: python -m training.recipes.worker MODULE ARGUMENT... runs `python -m MODULE ARGUMENT...`.

Ends at once when the recipe that started it is gone, killed without a chance to say so: standard input is then closed.
A stage that lived on would write into the folder of the recipe that is started again.
"""

import os
import runpy
import sys
import threading


def main() -> None:
    """Runs the module named on the command line as a program."""
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    threading.Thread(target=_follow, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _follow() -> None:
    os.read(0, 1)  # not sys.stdin, which the end of the program would wait for
    os._exit(1)


if __name__ == "__main__":
    main()
