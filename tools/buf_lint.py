"""Lint the wire contract with buf, and check it against an older one, without buf's registry.

    python tools/buf_lint.py [--proto DIRECTORY] [--against CONTRACT]

buf would fetch buf/validate from its registry; here protoc compiles the contract against the copy
inside protovalidate and buf reads the compiled image, under the rules of buf.yaml. CONTRACT is an
older guardrail/server/contract.binpb, for instance from
`git show main:guardrail/server/contract.binpb`. Exits with buf's status.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from generate_stubs import PROTO, PROTO_DIRECTORY, REPOSITORY, compile_contract


def buf(command: str, image: Path, *arguments: str) -> int:
    """Run one buf command on the contract's own file in an image; its findings go to stdout."""
    executable = Path(sys.executable).parent / "buf"
    only_ours = ("--config", str(REPOSITORY / "buf.yaml"), "--path", PROTO)
    return subprocess.run([executable, command, str(image), *only_ours, *arguments], check=False).returncode


def main() -> int:
    """Lint, then compare if asked to; the first failing status is returned."""
    parser = argparse.ArgumentParser(description="Lint the wire contract with buf.")
    parser.add_argument("--proto", type=Path, default=PROTO_DIRECTORY, help="directory that holds the contract")
    parser.add_argument("--against", type=Path, help="an older contract that must not be broken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch, "contract.binpb")
        image.write_bytes(compile_contract(options.proto).SerializeToString())
        status = buf("lint", image)
        if not status and options.against is not None:
            older = Path(scratch, "older.binpb")
            older.write_bytes(options.against.read_bytes())
            status = buf("breaking", image, "--against", str(older))
    return status


if __name__ == "__main__":
    sys.exit(main())
