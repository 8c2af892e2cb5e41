"""What is made from proto/ is what the generators make now, and the linters that guard it do bite."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
STUBS = ("guardrail_pb2.py", "guardrail_pb2.pyi", "guardrail_pb2_grpc.py", "guardrail_pb2_grpc.pyi")
GENERATED = [*(f"guardrail/v1/{name}" for name in STUBS), "guardrail/server/contract.binpb"]
PROTO = "guardrail/v1/guardrail.proto"


def tool(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / name, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated")
    done = tool("generate_stubs.py", "--root", root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("path", GENERATED)
def test_generated_files_are_current(regenerated, path):
    hint = f"{path} is stale: run tools/generate_stubs.py"
    assert (regenerated / path).read_bytes() == (ROOT / path).read_bytes(), hint


def test_nothing_else_is_generated(regenerated):
    found = {str(file.relative_to(regenerated)) for file in regenerated.rglob("*") if file.is_file()}
    assert found == set(GENERATED)


def messages(file):
    for message in file.message_type:
        yield message
        yield from messages_below(message)


def messages_below(message):
    for nested in message.nested_type:
        yield nested
        yield from messages_below(nested)


def test_stubs_and_contract_differ_in_validation_only():
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "guardrail/server/contract.binpb").read_bytes()).file
    assert not any(file.HasField("source_code_info") for file in files)
    contract = next(file for file in files if file.name == PROTO)
    probe = (
        "from guardrail.v1 import guardrail_pb2 as p; import sys; sys.stdout.buffer.write(p.DESCRIPTOR.serialized_pb)"
    )
    stub = descriptor_pb2.FileDescriptorProto.FromString(
        subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, check=True).stdout
    )
    assert list(stub.dependency) == ["google/protobuf/struct.proto", "google/protobuf/timestamp.proto"]
    assert list(contract.dependency) == ["buf/validate/validate.proto", *stub.dependency]
    assert b"buf.validate" not in stub.SerializeToString()
    rules = sum(field.HasField("options") for message in messages(contract) for field in message.field)
    assert rules > 20
    del contract.dependency[0]
    for message in [*messages(contract), *messages(stub)]:
        for field in message.field:
            field.ClearField("options")
            field.ClearField("json_name")
    assert stub == contract


def test_the_declared_floors_can_load_the_stubs():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = {name: tuple(map(int, v.split("."))) for name, v in (line.split(">=") for line in declared)}
    gencode = re.search(r"Protobuf Python Version: ([\d.]+)", (ROOT / "guardrail/v1/guardrail_pb2.py").read_text())
    assert floors["protobuf"] >= tuple(map(int, gencode[1].split(".")))
    grpc_code = re.search(r"VERSION = '([\d.]+)'", (ROOT / "guardrail/v1/guardrail_pb2_grpc.py").read_text())
    assert floors["grpcio"] >= tuple(map(int, grpc_code[1].split(".")))


# ---------------------------------------------------------------- buf


@pytest.fixture
def proto(tmp_path):
    """A copy of the contract, and a function that replaces a text in it."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    file = tmp_path / "proto" / PROTO

    def edit(old, new):
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        return tmp_path / "proto"

    return edit


def test_the_contract_passes_the_linter_and_breaks_nothing():
    done = tool("buf_lint.py", "--against", ROOT / "guardrail/server/contract.binpb")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_linter_finds_a_badly_named_field(proto):
    done = tool("buf_lint.py", "--proto", proto("double harm_bound = 2;", "double harmBound = 2;"))
    assert done.returncode != 0
    assert f"{PROTO}:" in done.stdout
    assert 'Field name "harmBound" should be lower_snake_case' in done.stdout


def test_the_linter_finds_a_broken_contract(proto):
    changed = proto("double harm_bound = 2;", "double harm_bound = 22;")
    done = tool("buf_lint.py", "--proto", changed, "--against", ROOT / "guardrail/server/contract.binpb")
    assert done.returncode != 0
    assert 'Previously present field "2" with name "harm_bound"' in done.stdout


def test_a_proto_that_does_not_compile_stops_the_linter(proto):
    done = tool("buf_lint.py", "--proto", proto("double harm_bound = 2;", "dubble harm_bound = 2;"))
    assert done.returncode != 0
    assert "dubble" in done.stderr
