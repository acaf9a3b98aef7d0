"""Laws that every provider must satisfy, on a bundle's graphs: `python -m benchmarks.conformance --provider cuda`.

The reference is plain session.run of ONNX Runtime on the CPU, with the portable graphs in fp32 and searches in plain
Python: none of the engine's bindings, fused steps or buffers. Times nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.conformance.case import BATCH
from benchmarks.conformance.laws import check_laws
from engine import Captioner, EngineError, RuntimeOptions
from engine.commands.parser import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. 0: all laws are satisfied; 1: some are not; 2: the provider does not start."""
    parser = Parser(prog="python -m benchmarks.conformance", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--bundle", type=Path, help="the bundle (default: the one that ships)")
    parser.add_argument("--provider", default="cpu", help="provider, named as for Captioner (default: cpu)")
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="one or more (default: fp32)")
    parser.add_argument("--cuda-graphs", action="store_true")
    options = parser.parse_args(arguments)
    broken = 0
    for precision in options.precision:
        runtime = RuntimeOptions(cuda_graphs=options.cuda_graphs)
        try:
            captioner = Captioner(
                options.bundle, provider=options.provider, precision=precision, batch_size=BATCH, runtime=runtime
            )
        except EngineError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for verdict in check_laws(captioner):
            broken += bool(verdict.fault)
            print(f"{captioner.provider} {precision}: {verdict.law}: {verdict.fault or 'holds'}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
