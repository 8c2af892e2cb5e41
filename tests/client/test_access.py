"""What a client shows of itself, and to whom."""

import grpc
import pytest

import guardrail
from guardrail.client.access import is_loopback
from guardrail.errors import LimitExceeded, NoVerdict, PermissionDenied, ServiceError, Unauthenticated

CLIENTS = [guardrail.Client, guardrail.AsyncClient]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "target",
    [
        "example.org:7410",
        "10.0.0.1:7410",
        "0.0.0.0:7410",
        "[::]:7410",
        "dns:///example.org:7410",
        "dns://127.0.0.1/example.org:7410",
        "dns://8.8.8.8/localhost:7410",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "localhost.example.org:7410",
        "xds:///localhost",
        "",
    ],
)
def test_a_token_is_not_sent_in_the_clear_to_other_machines(client, target):
    for token in ("secret", lambda: "secret"):
        with pytest.raises(ValueError, match="unencrypted") as caught:
            client(target, token=token)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "localhost:1",
        "127.0.0.1:1",
        "127.0.0.1",
        "[::1]:1",
        "dns:///localhost:1",
        "dns:localhost:1",
        "ipv4:127.0.0.1:1",
        "ipv6:[::1]:1",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "unix:/run/guardrail.sock",
        "unix:///run/guardrail.sock",
    ],
)
def test_this_machine(target):
    assert is_loopback(target)
    guardrail.Client(target, token="secret").close()


@pytest.mark.parametrize("client", CLIENTS)
def test_arguments_that_contradict_each_other(client, tmp_path):
    tls, credentials = guardrail.Tls(), grpc.ssl_channel_credentials()
    for given in (
        {"tls": tls, "credentials": credentials},
        {"token": "a", "channel": object()},
        {"tls": tls, "channel": object()},
        {"token": "a", "metadata": (("Authorization", "Bearer b"),)},
        {"token": ""},
        {"token": "a b"},
        {"token": "a\n"},
        {"token": "ä"},
        {"token": b"a"},
    ):
        with pytest.raises((ValueError, TypeError)):
            client("localhost:1", **given)
    with pytest.raises(OSError):
        client("localhost:1", tls=guardrail.Tls(ca=tmp_path / "nowhere.pem"))


def test_a_certificate_comes_with_its_key():
    with pytest.raises(ValueError, match="give both"):
        guardrail.Tls(certificate="a.pem")
    with pytest.raises(ValueError, match="give both"):
        guardrail.Tls(key="a.key")
    with pytest.raises(AttributeError):
        guardrail.Tls().ca = "x"


def failing():
    raise RuntimeError("the vault says: s3cret")


@pytest.mark.parametrize("token", [failing, lambda: "", lambda: None, lambda: "a\nb"])
def test_a_token_that_cannot_be_had_is_no_verdict(token):
    with guardrail.Client("localhost:1", token=token) as client:
        with pytest.raises(NoVerdict) as caught:
            client.check(policy="p", world="w", context={}, action={})
        assert caught.value.reason == "CREDENTIALS_MISSING"
        assert "s3cret" not in str(caught.value)
        with pytest.raises(Unauthenticated) as caught:
            client.policies()
        assert caught.value.reason == "CREDENTIALS_MISSING"
        with pytest.raises(Unauthenticated):
            client.watch()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_EXPIRED", Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", PermissionDenied),
        (grpc.StatusCode.PERMISSION_DENIED, "SELF_REPORT", PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", LimitExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", LimitExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", ServiceError),
    ],
)
def test_refusals_are_errors_of_their_own_and_no_verdict(code, reason, kind):
    from guardrail.client._failures import no_service, no_verdict

    error = no_service("why", reason, code)
    assert (type(error), error.reason) == (kind, reason)
    assert type(no_verdict("why", reason, code)) is NoVerdict
