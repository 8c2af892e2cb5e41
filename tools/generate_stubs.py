"""Generate everything that is made from proto/: the client's stubs and the server's contract.

    python tools/generate_stubs.py [--root DIRECTORY]

The server's contract is the proto as written, with its validation options. The client's stubs
are made from a copy without them, so that a client needs protobuf's own types only and never
registers a second buf/validate in the descriptor pool of the program it lives in.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_DIRECTORY = REPOSITORY / "proto"
PROTO = "guardrail/v1/guardrail.proto"
VALIDATION = "buf/validate/validate.proto"
CONTRACT = "guardrail/server/contract.binpb"
DEPENDENCY_FIELD = descriptor_pb2.FileDescriptorProto.DEPENDENCY_FIELD_NUMBER


def validation_files() -> descriptor_pb2.FileDescriptorSet:
    """buf/validate/validate.proto and its imports, as the installed protovalidate carries them."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().MergeFromString(validate_pb.desc().proto.to_binary())
    return files


def run_protoc(*arguments: str) -> None:
    """Run the protoc of grpcio-tools.

    :raises subprocess.CalledProcessError: if it fails; its messages are on stderr.
    """
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)


def compile_contract(proto_directory: Path = PROTO_DIRECTORY) -> descriptor_pb2.FileDescriptorSet:
    """The contract with its options, its imports and its comments, the contract's own file last.

    :raises subprocess.CalledProcessError: if the proto does not compile.
    """
    with tempfile.TemporaryDirectory() as scratch:
        imports, output = Path(scratch, "imports.binpb"), Path(scratch, "contract.binpb")
        imports.write_bytes(validation_files().SerializeToString(deterministic=True))
        run_protoc(
            f"--proto_path={proto_directory}",
            f"--descriptor_set_in={imports}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            PROTO,
        )
        return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())


def without_source_info(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """A copy without comments and positions, which no running program needs."""
    result = descriptor_pb2.FileDescriptorSet()
    result.CopyFrom(files)
    for file in result.file:
        file.ClearField("source_code_info")
    return result


def without_validation(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """The contract and its imports without custom options and without the files that define them.

    :raises ValueError: if another file than the contract itself imports the validation rules.
    """
    contract = descriptor_pb2.FileDescriptorProto()
    contract.CopyFrom(files.file[-1])
    place = list(contract.dependency).index(VALIDATION)
    del contract.dependency[place]
    # Comments stay attached by path; those of the imports would now point at the wrong import.
    kept = [location for location in contract.source_code_info.location if location.path[:1] != [DEPENDENCY_FIELD]]
    del contract.source_code_info.location[:]
    contract.source_code_info.location.extend(kept)
    for options, owner in list(_options(contract)):
        options.DiscardUnknownFields()
        for field, _ in options.ListFields():
            if field.is_extension:
                raise ValueError(f"custom options of {owner.DESCRIPTOR.name} are registered in this process")
        if not options.ByteSize():
            owner.ClearField("options")
    needed = {*contract.dependency}
    result = descriptor_pb2.FileDescriptorSet(file=[file for file in files.file if file.name in needed])
    if any(VALIDATION in file.dependency for file in result.file):
        raise ValueError(f"an import of {PROTO} imports {VALIDATION} as well")
    result.file.append(contract)
    return result


def _options(message: Message) -> Iterator[tuple[Message, Message]]:
    """Every `options` message below a descriptor, with the descriptor that owns it."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            if field.name == "options":
                yield child, message
            else:
                yield from _options(child)


def generate(root: Path) -> None:
    """Write the stubs and the contract below `root`.

    :raises subprocess.CalledProcessError: if protoc or one of its plugins fails.
    """
    contract = compile_contract()
    target = root / CONTRACT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(without_source_info(contract).SerializeToString(deterministic=True))
    plugins = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as scratch:
        stripped = Path(scratch, "client.binpb")
        stripped.write_bytes(without_validation(contract).SerializeToString(deterministic=True))
        run_protoc(
            f"--descriptor_set_in={stripped}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={root}",
            f"--grpc_python_out={root}",
            f"--mypy_out=quiet:{root}",
            f"--mypy_grpc_out=quiet:{root}",
            PROTO,
        )


def main() -> None:
    """Generate into the repository, or below --root."""
    parser = argparse.ArgumentParser(description="Generate the client's stubs and the server's contract.")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="write below this directory")
    generate(parser.parse_args().root)


if __name__ == "__main__":
    main()
