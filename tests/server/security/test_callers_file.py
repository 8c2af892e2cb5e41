import re
from pathlib import Path

import pytest

from guardrail.errors import SecurityInvalid
from guardrail.server.security.callers_file import read_callers
from guardrail.server.security.grants import RULES, Role

HASH = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64
WHOLE = f"""\
schema: guardrail/callers/v1
jwt: {{issuer: https://id.example, audience: guardrail, keys: jwks.json, algorithms: [ES256]}}
callers:
  - name: refunds-agent
    keys: ['{HASH}']
    jwt: {{sub: refunds}}
    certificate: spiffe://prod/refunds
    grants:
      - {{roles: [agent], policies: ["refunds*"], worlds: ["prod/*"]}}
    limits: {{requests_per_second: 50, burst: 100, worlds: 20}}
  - name: watcher
    jwt: {{groups: oncall}}
    grants:
      - {{roles: [viewer, approver], policies: ["*"], worlds: ["*"]}}
"""


@pytest.fixture
def problems(tmp_path):
    def find(text):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        with pytest.raises(SecurityInvalid) as caught:
            read_callers(path)
        assert caught.value.problems
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        return [str(p).removeprefix(f"{path}:") for p in caught.value.problems]

    return find


def test_a_whole_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(WHOLE)
    found = read_callers(path)
    first, second = found.entries
    assert (first.caller.name, first.hashes, first.claims) == ("refunds-agent", (HASH,), (("sub", "refunds"),))
    assert first.certificate == "spiffe://prod/refunds"
    assert first.caller.grants[0].roles == {Role.AGENT}
    assert (first.caller.rate.per_second, first.caller.rate.burst, first.caller.max_worlds) == (50.0, 100, 20)
    assert second.caller.rate is None
    assert second.caller.max_worlds is None
    assert (found.jwt.issuer, found.jwt.keys, found.jwt.algorithms) == (
        "https://id.example",
        tmp_path / "jwks.json",
        ("ES256",),
    )
    assert found.needs_client_ca


def edited(*edits):
    text = WHOLE
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([("callers/v1", "callers/v2")], "1:9: "),
        ([("  - name: watcher\n", "  - name: refunds-agent\n")], "11:11: another caller is called 'refunds-agent' too"),
        ([("name: watcher", "name: 'a/b'")], "11:11: "),
        ([("roles: [agent]", "roles: [agents]")], "9:18: the value is 'agents'; needs agent"),
        ([("roles: [agent]", "roles: []")], "9:17: roles is a list; must not be empty"),
        ([('policies: ["refunds*"], ', "")], "9:9: field 'policies' is missing; add it"),
        ([('worlds: ["prod/*"]', "worlds: []")], "must not be empty"),
        ([("audience: guardrail, ", "")], "2:6: field 'audience' is missing; add it"),
        ([("[ES256]", "[HS256]")], "the value is 'HS256'; needs RS256"),
        ([("[ES256]", "[none]")], "is 'none'; needs"),
        ([("[ES256]", "[]")], "must not be empty"),
        ([("    certificate: spiffe", "    certficate: spiffe")], "unknown field 'certficate'; did you mean"),
        ([("{sub: refunds}", "{}")], "must not be empty"),
        ([("{sub: refunds}", "{groups: oncall}")], "12:10: a token of refunds-agent can match these claims too"),
        (
            [("{sub: refunds}", "{groups: oncall, sub: x}")],
            "12:10: a token of refunds-agent can match these claims too",
        ),
        ([("{groups: oncall}", "{groups: [oncall]}")], "12:"),
        ([("requests_per_second: 50, ", "")], "burst limits nothing without requests_per_second"),
        ([("requests_per_second: 50", "requests_per_second: 0")], "needs a number greater than 0"),
        ([("burst: 100", "burst: 0")], "needs a number of at least 1"),
        ([("worlds: 20", "worlds: -1")], "needs a number of at least 0"),
        ([("    jwt: {groups: oncall}\n", "")], "11:5: watcher has no credential; give it keys, jwt or certificate"),
        ([("    jwt: {groups: oncall}\n", "    keys: []\n")], "11:5: watcher has no credential"),
        ([("    jwt: {groups: oncall}\n", f"    keys: ['{HASH}']\n")], "12:12: refunds-agent has this key too"),
        ([(f"keys: ['{HASH}']", f"keys: ['{HASH}', '{HASH}']")], "refunds-agent has this key too"),
        (
            [("    jwt: {groups: oncall}\n", "    certificate: spiffe://prod/refunds\n")],
            "12:18: refunds-agent has this certificate too",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(problems, edits, expected):
    found = problems(edited(*edits))
    assert any(expected in problem for problem in found), found
    assert all(problem[0].isdigit() for problem in found)


def test_tokens_without_an_issuer(problems):
    found = problems(WHOLE.replace("jwt: {issuer", "# jwt: {issuer"))
    assert [p.split(";")[0] for p in found] == ["6:10: no tokens are accepted", "12:10: no tokens are accepted"]


def test_no_callers(problems):
    assert problems("schema: guardrail/callers/v1\ncallers: []\n") == ["2:10: callers is a list; must not be empty"]
    assert problems("schema: guardrail/callers/v1\n")


def test_files_that_are_none(tmp_path, problems):
    for text in ("", "- a", "a: [", "\x00"):
        problems(text)
    with pytest.raises(SecurityInvalid, match="cannot be read"):
        read_callers(tmp_path / "nowhere.yaml")
    with pytest.raises(SecurityInvalid, match="cannot be read"):
        read_callers(tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        "grk_secret",
        "[grk_secret]",
        "{a: grk_secret}",
        f"['{HASH}', grk_secret]",
        f"['{HASH} grk_secret']",
        "[[grk_secret]]",
    ],
)
def test_a_key_in_the_clear_is_refused_and_not_repeated(problems, keys):
    found = problems(edited((f"['{HASH}']", keys)))
    assert len(found) == 1
    assert "grk_secret" not in found[0]
    assert found[0].startswith("5:")


def test_a_hash_is_of_the_right_form(problems):
    for wrong in (HASH.upper(), HASH[:-1], HASH + "0", HASH.replace("sha256", "sha1"), "sha256:", HASH + "\\n"):
        (found,) = problems(edited((f"['{HASH}']", f'["{wrong}"]')))
        assert "not the hash of a key" in found


def test_every_problem_is_found_in_one_run(problems):
    text = edited(("[agent]", "[boss]"), ("worlds: 20", "worlds: x"), ("audience: guardrail, ", ""))
    assert len(problems(text)) == 3


DOCS = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


def test_the_documented_file_can_be_read(tmp_path):
    (document,) = re.findall(r"^```yaml\n(schema: guardrail/callers/v1\n.*?)^```", DOCS, flags=re.M | re.S)
    path = tmp_path / "callers.yaml"
    path.write_text(document)
    assert [entry.caller.name for entry in read_callers(path).entries] == ["refunds-agent", "ledger", "oncall"]


def test_the_documented_roles_are_those_of_the_table():
    rows = {
        role: set(re.findall(r"`(\w+)`", calls))
        for role, calls in re.findall(r"^\| `?(\w+)`? \| (.*) \|$", DOCS, flags=re.M)
    }
    rows["operator"] |= rows["viewer"]
    for role in Role:
        assert rows[role] | rows["any"] == {name for name, rule in RULES.items() if role in rule.roles}, role
