"""Run one fuzz target, guided by coverage, for a while: `python tools/fuzz.py TARGET [--seconds N] [--corpus FOLDER]`.

Exit status 0 if nothing was found. What was found is written to `var/fuzz/` and its bytes are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

INSTRUMENTED = ["guardrail.wire", "guardrail.canonical", "guardrail.client", "guardrail.server", "guardrail.policy"]
INSTRUMENTED += ["guardrail.rebuild", "guardrail.guard", "guardrail.oracles", "ruamel.yaml"]


def main() -> None:
    """Read the command line and hand over to the fuzzer, which ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "var" / "fuzz")
    options = parser.parse_args()
    with atheris.instrument_imports(include=INSTRUMENTED):
        import fuzz_targets

        if options.target not in fuzz_targets.TARGETS:
            parser.error(f"no target {options.target!r}; known are {', '.join(fuzz_targets.TARGETS)}")
        fuzz_targets.TARGETS[options.target](b"")  # it imports what it needs and starts it
    corpus = options.output / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-artifact_prefix={options.output}/{options.target}-",
        # The peak that libFuzzer reads is that of the process it was started from, too: no limit on it is fair.
        "-rss_limit_mb=0",
        "-malloc_limit_mb=2048",
        "-timeout=20",
        "-max_len=8192",
        "-print_final_stats=1",
        str(corpus),
        str(ROOT / "tests" / "fuzz" / "corpus" / options.target),
    ]
    atheris.Setup([sys.argv[0], *flags], fuzz_targets.TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
