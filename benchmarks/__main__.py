"""`python -m benchmarks [NAME ...] [--json]`: run all benchmarks, or the named ones."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks import classes, decisions, kernel, overload, replay, service, simulations, soak

BENCHMARKS = {
    "service": service,
    "decisions": decisions,
    "overload": overload,
    "soak": soak,
    "kernel": kernel,
    "classes": classes,
    "replay": replay,
    "simulations": simulations,
}


def main() -> None:
    """Run what was asked for and print ratios, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios measured within one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    results = {}
    for name in arguments.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        results[name] = BENCHMARKS[name].run()
        if not arguments.json:
            print(BENCHMARKS[name].report(results[name]), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
