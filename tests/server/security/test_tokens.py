"""Which tokens count, and as whom."""

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from security_files import AUDIENCE, ISSUER, JWT, public_jwk

from guardrail.errors import SecurityInvalid, Unauthenticated
from guardrail.server.security import tokens
from guardrail.server.security.callers_file import read_callers
from guardrail.server.security.key_set import LOOK_SECONDS, KeySet, read_key_set
from guardrail.server.security.tokens import Tokens

CALLERS = f"""\
schema: guardrail/callers/v1
{JWT}callers:
  - name: refunds
    jwt: {{sub: refunds}}
    grants: [{{roles: [agent], policies: ['*'], worlds: ['*']}}]
  - name: oncall
    jwt: {{groups: oncall, level: 3, active: true}}
    grants: [{{roles: [viewer], policies: ['*'], worlds: ['*']}}]
  - name: fleet
    jwt: {{azp: fleet}}
    grants: [{{roles: [agent], policies: ['*'], worlds: ['*']}}]
"""


class Now:
    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def checker(tmp_path, issuer, now, clock):
    path = tmp_path / "callers.yaml"
    path.write_text(CALLERS)
    found = read_callers(path)
    return Tokens(found.jwt, found.entries, now, clock)


def refused(checker, token, reason="CREDENTIALS_INVALID"):
    with pytest.raises(Unauthenticated) as caught:
        checker.identify(token)
    assert caught.value.reason == reason
    assert len(token) < 10 or token[:40] not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token_is_its_caller(checker, issuer, algorithm):
    found = checker.identify(issuer.token(algorithm=algorithm))
    assert found.caller.name == "refunds"
    assert found.caller is found.entry.caller
    assert checker.identify(issuer.token(aud=[AUDIENCE, "other"])).caller.name == "refunds"


def test_claims_must_all_match_exactly(checker, issuer):
    good = {"sub": "ann", "groups": ["dev", "oncall"], "level": 3, "active": True}
    assert checker.identify(issuer.token(**good)).entry.caller.name == "oncall"
    assert checker.identify(issuer.token(**{**good, "groups": "oncall"})).entry.caller.name == "oncall"
    for change in (
        {"groups": ["dev"]},
        {"groups": "oncall2"},
        {"groups": {"oncall": 1}},
        {"groups": [["oncall"]]},
        {"level": "3"},
        {"level": 3.5},
        {"level": True},
        {"active": 1},
        {"active": "true"},
        {"active": None},
    ):
        assert "match no caller" in refused(checker, issuer.token(**{**good, **change}))
    assert "match no caller" in refused(checker, issuer.token(sub="Refunds"))


def test_subjects_that_share_an_entry_are_told_apart(checker, issuer):
    names = {checker.identify(issuer.token(sub=sub, azp="fleet")).caller.name for sub in ("a", "b")}
    assert names == {"fleet/a", "fleet/b"}


def test_a_token_of_two_callers_is_nobodys(checker, issuer):
    assert "match several callers" in refused(checker, issuer.token(sub="refunds", azp="fleet"))


@pytest.mark.parametrize("sub", ["", "x" * 257, "a\nb", "a\x1b[0m", "\u202eabc"])
def test_a_subject_that_would_spoil_the_log_is_refused(checker, issuer, sub):
    refused(checker, issuer.token(sub=sub, azp="fleet"))


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "sub"])
def test_what_a_token_must_say(checker, issuer, claim):
    refused(checker, issuer.token(without=[claim]))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": ISSUER + "/"},
        {"iss": "https://evil.example"},
        {"iss": [ISSUER, "x"]},
        {"iss": None},
        {"aud": "guardrail2"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"aud": {"guardrail": 1}},
        {"aud": None},
        {"exp": "soon"},
        {"exp": None},
        {"exp": 1e400},
        {"sub": 7},
        {"sub": None},
    ],
    ids=str,
)
def test_wrong_claims(checker, issuer, claims):
    refused(checker, issuer.token(**claims))


def test_times(checker, issuer, now):
    at = int(time.time())
    refused(checker, issuer.token(exp=at - 1), "CREDENTIALS_EXPIRED")
    refused(checker, issuer.token(exp=at - tokens.LEEWAY_SECONDS - 100), "CREDENTIALS_EXPIRED")
    assert "not valid yet" in refused(checker, issuer.token(nbf=at + 300), "CREDENTIALS_EXPIRED")
    assert "not valid yet" in refused(checker, issuer.token(iat=at + 300), "CREDENTIALS_EXPIRED")
    checker.identify(issuer.token(iat=at + 3, nbf=at + 3))  # a clock that is a little ahead
    # A token that was checked before runs out all the same.
    token = issuer.token(exp=at + 300)
    checker.identify(token)
    checker.identify(token)
    now.ahead = 301
    refused(checker, token, "CREDENTIALS_EXPIRED")


def test_unsigned_tokens(checker, issuer, forge):
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    for algorithm in ("none", "None", "nOnE", "", None, ["ES256"], {"a": 1}):
        refused(checker, forge({"alg": algorithm, "kid": "ES256"}, claims))
    refused(checker, forge({"kid": "ES256"}, claims))
    head, body, _ = issuer.token().split(".")
    refused(checker, f"{head}.{body}.")


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_a_public_key_is_no_shared_secret(checker, issuer, forge, form):
    """The attack: sign with HMAC, under the RSA key that everybody knows."""
    import hashlib
    import hmac

    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    secret = issuer.keys["RS256"].public_key().public_bytes(Encoding.PEM, form)
    unsigned = forge({"alg": "HS256", "kid": "RS256", "typ": "JWT"}, claims).rpartition(".")[0]
    signature = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
    refused(checker, forge({"alg": "HS256", "kid": "RS256", "typ": "JWT"}, claims, signature))


def test_a_key_is_used_for_its_own_algorithm_only(checker, issuer):
    refused(checker, issuer.token(algorithm="ES256", kid="RS256"))
    refused(checker, issuer.token(algorithm="RS256", kid="ES256"))
    refused(checker, issuer.token(algorithm="RS512", kid="RS256", key=issuer.keys["RS256"]))  # not in the settings
    issuer.publish(a=public_jwk(issuer.keys["RS256"], "a", alg="RS512"), ES256=issuer.keys["ES256"])
    refused(checker, issuer.token(algorithm="RS256", kid="a"))


def test_keys_that_a_token_brings_along_count_for_nothing(checker, issuer):
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = public_jwk(own, "ES256")
    for headers in (
        {"kid": "ES256", "jwk": jwk},
        {"kid": "mine", "jwk": jwk},
        {"kid": "ES256", "jku": "https://evil.example/jwks.json"},
        {"kid": "../../jwks.json"},
        {"kid": ""},
        {},
    ):
        refused(checker, issuer.token(key=own, headers=headers))


def test_a_token_must_name_its_key(checker, issuer):
    assert "no kid" in refused(checker, issuer.token(headers={}))


def test_a_changed_token_is_another_one(checker, issuer):
    token = issuer.token()
    checker.identify(token)
    head, body, signature = token.split(".")
    for changed in (
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body[:-2]}AA.{signature}",
        f"{head}.{body}.{signature}.x",
        f"{head}.{body}",
        token + " ",
    ):
        refused(checker, changed)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", "a.b.c", "grk", "\x00.\x00.\x00", "ä.ö.ü", "e30.e30.e30", "W10.e30."]
)
def test_what_is_no_token(checker, token):
    refused(checker, token)


def test_size_is_bounded(checker, issuer):
    assert "longer than" in refused(checker, issuer.token(padding="x" * tokens.MAX_BYTES))
    assert "longer than" in refused(checker, "a" * 10**7)


def test_deep_claims_are_refused_not_fatal(checker, forge):
    refused(checker, forge(b"[" * 3_000, b"{}"))


def test_keys_are_rotated_without_a_restart(checker, issuer, clock):
    fresh = ec.generate_private_key(ec.SECP256R1())
    old = issuer.token()
    checker.identify(old)
    refused(checker, issuer.token(key=fresh, kid="fresh"))
    issuer.publish(ES256=issuer.keys["ES256"], fresh=fresh)
    checker.identify(issuer.token(key=fresh, kid="fresh"))  # an unknown kid has the file looked at
    issuer.publish(fresh=fresh)
    clock.now += LOOK_SECONDS
    # Taken out: the very token that was checked before is refused.
    refused(checker, old)
    checker.identify(issuer.token(key=fresh, kid="fresh"))


def test_a_kid_that_gets_another_key_ends_the_tokens_of_the_first(checker, issuer, clock):
    old, fresh = issuer.token(), ec.generate_private_key(ec.SECP256R1())
    checker.identify(old)
    issuer.publish(ES256=fresh)
    clock.now += LOOK_SECONDS
    refused(checker, old)


def test_a_broken_new_file_keeps_the_last_good(checker, issuer, clock):
    for content in ("{", '{"keys": []}', "[]", '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}'):
        issuer.path.write_text(content)
        clock.now += LOOK_SECONDS
        checker.identify(issuer.token(jti=content))
    issuer.path.unlink()
    clock.now += LOOK_SECONDS
    checker.identify(issuer.token(jti="gone"))
    fresh = ec.generate_private_key(ec.SECP256R1())
    issuer.publish(fresh=fresh)
    clock.now += LOOK_SECONDS
    checker.identify(issuer.token(key=fresh, kid="fresh"))


def test_the_file_is_looked_at_once_a_second_at_most(issuer, clock, monkeypatch):
    looks = []
    keys = KeySet(issuer.path, clock)
    real = keys._look
    monkeypatch.setattr(keys, "_look", lambda: looks.append(clock.now) or real())
    for _ in range(100):
        clock.now += 0.1
        keys.refresh()
        keys.find("ES256")
    assert 9 <= len(looks) <= 10


def test_tokens_that_were_checked_are_remembered_and_few(checker, issuer, monkeypatch):
    checked = []
    real = checker._check
    monkeypatch.setattr(checker, "_check", lambda token: checked.append(token) or real(token))
    monkeypatch.setattr(tokens, "MAX_CACHED", 2)
    made = [issuer.token(jti=str(number)) for number in range(3)]
    for token in (made[0], made[0], made[1], made[0], made[2], made[0]):
        checker.identify(token)
    assert checked == made
    checker.identify(made[1])  # the one that was used longest ago was forgotten
    assert len(checked) == 4
    assert len(checker._checked) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not a JWKS"),
        ("[" * 100_000, "not a JWKS"),
        ('{"keys": {}}', "not a JWKS"),
        ('{"keys": [1]}', "not a JWKS"),
        ('{"keys": []}', "no usable key"),
        ('{"keys": [{"kty": "martian", "kid": "a"}]}', "no usable key"),
        ('{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}', "private or shared"),
    ],
)
def test_key_files_that_are_wrong(tmp_path, content, why):
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(SecurityInvalid, match=why) as caught:
        read_key_set(path)
    assert "AAAA" not in str(caught.value)


def test_key_files_with_wrong_keys(tmp_path, issuer, signing_keys):
    with pytest.raises(SecurityInvalid, match="cannot be read"):
        read_key_set(tmp_path / "nowhere.json")
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(signing_keys["ES256"]))
    good = public_jwk(signing_keys["ES256"], "a")
    nameless = {name: value for name, value in good.items() if name != "kid"}
    weak = public_jwk(rsa.generate_private_key(65_537, 1_024), "weak")
    for keys, why in (
        ([{**private, "kid": "a"}], "private or shared"),
        ([nameless], "no kid"),
        ([good, good], "another key"),
        ([weak], "1024 bits"),
        ([good] * 101, "at most 100"),
    ):
        issuer.path.write_text(json.dumps({"keys": keys}))
        with pytest.raises(SecurityInvalid, match=why):
            read_key_set(issuer.path)
    issuer.path.write_text(json.dumps({"keys": [good, {**good, "use": "enc", "kid": "b"}]}))
    assert list(read_key_set(issuer.path)) == ["a"]
