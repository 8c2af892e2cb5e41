"""Under which names a console answers."""

import pytest

from guardrail.console.origins import origins_of


def test_on_loopback_only_names_of_this_machine():
    origins = origins_of("127.0.0.1:0", 7412, tls=False)
    for name in ("localhost", "127.0.0.1", "[::1]", "LocalHost"):
        assert origins.knows_host(f"{name}:7412")
        assert origins.knows_origin(f"http://{name}:7412", "localhost:7412")
        assert not origins.knows_host(name)
        assert not origins.knows_host(f"{name}:7413")
        assert not origins.knows_origin(f"https://{name}:7412", "localhost:7412")
    for other in ("", "evil.example:7412", "localhost.evil.example:7412", "127.0.0.1.nip.io:7412", "0.0.0.0:7412"):
        assert not origins.knows_host(other)
    assert not origins.encrypted("localhost:7412")


def test_default_ports_may_be_left_out():
    assert origins_of("localhost:80", 80, tls=False).knows_host("localhost")
    assert origins_of("localhost:443", 443, tls=True).knows_origin("https://localhost", "localhost")


def test_a_proxy_is_known_by_its_origin_and_takes_secure_cookies():
    origins = origins_of("127.0.0.1:0", 7412, tls=False, more=("https://Console.example",))
    assert origins.knows_host("console.example")
    assert origins.knows_origin("https://console.example", "console.example")
    assert not origins.knows_origin("http://console.example", "console.example")
    assert origins.encrypted("console.example")
    assert not origins.encrypted("localhost:7412")


@pytest.mark.parametrize("listen", ["0.0.0.0:7412", "console.example:7412", "[::]:7412"])
def test_beyond_loopback_the_certificate_says_which_names(listen):
    origins = origins_of(listen, 7412, tls=True)
    assert origins.knows_host("console.example:7412")
    assert origins.encrypted("console.example:7412")
    assert origins.knows_origin("https://console.example:7412", "console.example:7412")
    assert not origins.knows_origin("https://evil.example", "console.example:7412")
    assert not origins.knows_origin("http://console.example:7412", "console.example:7412")
    told = origins_of(listen, 7412, tls=True, more=("https://console.example",))
    assert told.knows_host("console.example")
    assert not told.knows_host("other.example")
