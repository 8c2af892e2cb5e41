"""Certificates, tokens, callers files and clocks that tests of who may do what are made of."""

import base64
import datetime
import ipaddress
import json
import time
from types import SimpleNamespace

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from guardrail.server.security.keys import hash_line, new_key

ISSUER, AUDIENCE = "https://id.example", "guardrail"
LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


class Authority:
    """A CA that signs what a test wants, into a folder."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        self.certificate, self.key = self._sign(name, None, (), 0, 1, ca=True)
        self.path = self._write(f"{name}.pem", self._pem(self.certificate))

    def _sign(self, name, issuer, alternatives, start, end, *, ca=False):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=start, minutes=-5))
            .not_valid_after(now + datetime.timedelta(days=end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(alternatives)), critical=False)
        return builder.sign(issuer.key if issuer else key, hashes.SHA256()), key

    @staticmethod
    def _pem(certificate):
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _write(self, name, content, mode=0o600):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def issue(self, name, alternatives=(), *, start=0, end=1, file=None):
        """A certificate and its key, as files; `.certificate` and `.key`."""
        certificate, key = self._sign(name, self, alternatives, start, end)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file = file or name
        return SimpleNamespace(
            certificate=self._write(f"{file}.crt", self._pem(certificate)),
            key=self._write(f"{file}.key", key.private_bytes(serialization.Encoding.PEM, *form)),
        )


def public_jwk(key, kid, **fields):
    algorithm = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }[next(t for t in (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey) if isinstance(key, t))]
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **fields}


class Issuer:
    """An identity provider: its JWKS file and its tokens."""

    def __init__(self, path, keys):
        self.path, self.keys = path, keys
        self.publish(**{name: keys[name] for name in keys})

    def publish(self, **keys):
        """Write these keys, kid to key or finished JWK."""
        listed = [key if isinstance(key, dict) else public_jwk(key, kid) for kid, key in keys.items()]
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": listed}))
        fresh.replace(self.path)

    def token(self, sub="refunds", algorithm="ES256", *, kid=None, key=None, headers=None, without=(), **claims):
        now = int(time.time())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "exp": now + 300, "iat": now, **claims}
        body = {name: value for name, value in body.items() if name not in without}
        headers = {"kid": kid or algorithm} if headers is None else headers
        # Not jwt.encode, which makes no token with wrong claims.
        return jwt.PyJWS().encode(json.dumps(body).encode(), key or self.keys[algorithm], algorithm, headers=headers)


def segment(value):
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode())
        .rstrip(b"=")
        .decode()
    )


GRANT_ALL = "{roles: [%s], policies: ['*'], worlds: ['*']}"
JWT = f"jwt: {{issuer: '{ISSUER}', audience: {AUDIENCE}, keys: jwks.json}}\n"


class CallersFile:
    """A callers file that a test writes."""

    def __init__(self, path):
        self.path, self.keys, self._entries, self.head = path, {}, {}, ""

    def add(self, name, *grants, key=True, extra=""):
        """A caller; `grants` are roles for everything, or whole grants."""
        lines = [f"  - name: {name}"]
        if key:
            self.keys[name] = new_key()
            lines.append(f"    keys: ['{hash_line(self.keys[name])}']")
        if extra:
            lines.append(f"    {extra}")
        lines.append("    grants:")
        lines += [f"      - {grant if grant.startswith('{') else GRANT_ALL % grant}" for grant in grants]
        self._entries[name] = "\n".join(lines)
        return self

    def remove(self, name):
        del self._entries[name]
        return self

    def write(self):
        self.path.write_text(
            f"schema: guardrail/callers/v1\n{self.head}callers:\n" + "\n".join(self._entries.values()) + "\n"
        )
        return self.path


class Clock:
    """A clock that a test moves."""

    def __init__(self, now=1_000.0):
        self.now = now

    def __call__(self):
        return self.now
