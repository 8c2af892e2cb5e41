"""Whatever is sent, it is a caller of the file or it is refused."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from security_files import JWT, segment

from guardrail.errors import SecurityInvalid, Unauthenticated
from guardrail.server.security.authentication import Authenticator
from guardrail.server.security.callers_file import read_callers

FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def authenticator(callers, issuer):
    callers.head = JWT
    callers.add("a", "agent", extra="certificate: a.prod").add("b", "agent", key=False, extra="jwt: {sub: b}")
    return Authenticator(read_callers(callers.write()))


def test_who_is_who(authenticator, callers, issuer):
    key = ("authorization", f"Bearer {callers.keys['a']}")
    token = ("authorization", f"Bearer {issuer.token(sub='b')}")
    peer = {"peer_dns": [b"a.prod"]}
    assert authenticator.identify([key], {}).name == "a"
    assert authenticator.identify([("x", "y"), key], peer).name == "a"
    assert authenticator.identify([], peer).name == "a"
    assert authenticator.identify([token], {}).name == "b"
    for metadata, shown in (([], {}), ([token], peer), ([token, key], {}), ([key, key], peer)):
        with pytest.raises(Unauthenticated):
            authenticator.identify(metadata, shown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["none", "ES256", "RS256", "EdDSA", "HS256"]) | json_values,
        "kid": st.sampled_from(["ES256", "RS256"]) | json_values,
        "typ": json_values,
        "crit": json_values,
        "b64": json_values,
    },
)
claims = st.dictionaries(st.sampled_from(["iss", "aud", "exp", "sub", "nbf", "iat", "x"]), json_values) | json_values
tokens = st.builds(
    lambda head, body, signature: ".".join((segment(head), segment(body), segment(signature))),
    headers | json_values,
    claims,
    st.binary(max_size=100),
)


@FUZZ
@given(st.text(max_size=300) | tokens.map("Bearer {}".format) | st.text(max_size=100).map("Bearer grk_{}".format))
def test_any_other_header_is_refused(authenticator, header):
    with pytest.raises(Unauthenticated):
        authenticator.identify([("authorization", header)], {})


@FUZZ
@given(st.data())
def test_no_change_of_a_token_is_its_caller(authenticator, issuer, data):
    token = issuer.token(sub="b")
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.characters(min_codepoint=33, max_codepoint=126)) + token[place + 1 :]
    try:
        caller = authenticator.identify([("authorization", f"Bearer {changed}")], {})
    except Unauthenticated:
        return
    # The last character of a segment may hold bits that base64 does not use.
    assert caller.name == "b"
    assert changed == token or token[place + 1 : place + 2] in ("", ".")


@FUZZ
@given(st.text(max_size=400) | json_values.map(lambda value: f"schema: guardrail/callers/v1\ncallers: {value!r}\n"))
def test_any_other_callers_file_is_refused(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(SecurityInvalid):
        read_callers(path)
