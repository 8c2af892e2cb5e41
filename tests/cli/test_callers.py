"""`guardrail keys`, `guardrail callers`, and commands that show who asks."""

import json
import signal
import time

import pytest

from guardrail.server.security.keys import HASH, hash_line, new_key

FILE = """\
schema: guardrail/callers/v1
callers:
  - name: boss
    keys: ['%s']
    grants: [{roles: [operator, agent], policies: ['*'], worlds: ['*']}]
  - name: reader
    keys: ['%s']
    certificate: reader.prod
    grants: [{roles: [viewer], policies: [coin], worlds: ['prod/*']}]
    limits: {requests_per_second: 5, worlds: 2}
"""


@pytest.fixture
def keys():
    return new_key(), new_key()


@pytest.fixture
def file(tmp_path, keys):
    path = tmp_path / "callers.yaml"
    path.write_text(FILE % tuple(map(hash_line, keys)))
    return path


def test_a_new_key(cli):
    made = [cli("keys", "new", "--json").json for _ in range(2)]
    assert made[0]["key"] != made[1]["key"]
    for one in made:
        assert one["hash"] == hash_line(one["key"])
    text = cli("keys", "new").out
    key = next(word for word in text.split() if word.startswith("grk_"))
    assert hash_line(key) in text
    assert HASH.search(text)


def test_who_may_do_what(cli, file):
    result = cli("callers", "check", file, "--json")
    assert result.code == 0
    assert result.json["valid"] is True
    boss, reader = result.json["callers"]
    assert (boss["name"], boss["known_by"]) == ("boss", ["1 key"])
    assert {"CheckAction", "ReloadPolicies", "GetWorld"} <= set(boss["grants"][0]["calls"])
    assert reader["known_by"] == ["1 key", "certificate reader.prod"]
    assert set(reader["grants"][0]["calls"]) & {"CheckAction", "ReportOutcome", "ReloadPolicies"} == set()
    assert reader["limits"] == {"requests_per_second": 5.0, "requests_at_once": 5.0, "worlds": 2}
    text = cli("callers", "check", file).out
    assert "reader, known by 1 key, certificate reader.prod" in text
    assert "viewer of policies coin, worlds prod/*: GetWorld" in text


def test_a_wrong_file_is_a_no(cli, file):
    file.write_text(file.read_text().replace("[viewer]", "[viewr]").replace("sha256:", "grk_", 1))
    result = cli("callers", "check", file, "--json")
    assert (result.code, result.json["valid"]) == (1, False)
    assert [p["line"] for p in result.json["problems"]] == [4, 9]
    result = cli("callers", "check", file)
    assert result.code == 1
    assert f"{file}:9:" in result.out
    assert "did you mean 'viewer'" in result.out
    assert cli("callers", "check", file.parent / "nowhere.yaml").code == 1


def test_commands_show_who_asks(cli, service_parts, policy_file, file, keys, tmp_path, monkeypatch):
    start, stop = service_parts
    by_keys = FILE.replace("    certificate: reader.prod\n", "")
    file.write_text(by_keys % tuple(map(hash_line, keys)))
    process, serving = start(policy_file, tmp_path / "a.db", "--callers", str(file))
    if serving is None:
        pytest.fail(process.communicate()[1])
    try:
        target = ["--target", serving["listen"], "--json"]
        ask = ["check", "--policy", "coin", "--world", "prod/1", "--action", '{"kind": "low"}', *target]
        result = cli(*ask)
        assert result.code == 3
        assert json.loads(result.err)["error"]["reason"] == "CREDENTIALS_MISSING"
        monkeypatch.setenv("GUARDRAIL_TOKEN", keys[1])
        assert json.loads(cli(*ask).err)["error"]["reason"] == "PERMISSION_DENIED"
        assert cli("worlds", *target).code == 0
        token = tmp_path / "token"
        token.write_text(keys[0] + "\n")
        named = ["--token-file", token]
        assert cli(*ask, *named).json["decision"] in ("accept", "reject", "escalate")
        decision = cli(*ask, *named).json["decision_id"]
        assert cli("decisions", "show", decision, *target, *named).json["verdict"]["world"] == "prod/1"
        assert cli("policy", "reload", *target, *named).code == 0
        refused = cli("report", "--policy", "coin", "--world", "w", "--outcome", "true", *target, *named)
        assert json.loads(refused.err.splitlines()[-1])["error"]["reason"] == "PERMISSION_DENIED"
        # The callers file is read again on SIGHUP; the old key is none any more.
        fresh = new_key()
        file.write_text(by_keys % (hash_line(fresh), hash_line(keys[1])))
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while cli(*ask, *named).code != 3:
            assert time.monotonic() < deadline
        token.write_text(fresh)
        assert cli(*ask, *named).code in (0, 1)
        file.write_text("broken")
        error = json.loads(cli("policy", "reload", *target, *named).err)["error"]
        assert error["reason"] == "SECURITY_INVALID"
        assert f"{file}:1:1: " in error["message"]
        assert cli(*ask, *named).code in (0, 1)
    finally:
        status, _, err = stop(process)
    assert status == 0
    events = [json.loads(line) for line in err.splitlines()]
    assert "callers_not_told_apart" not in [e["event"] for e in events]
    assert [e for e in events if e["event"] == "callers_read"]
    assert not any(key in err for key in (*keys, fresh))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target", "example.org:1"],
        ["--token-file", "/nowhere"],
        ["--tls-ca", "/nowhere"],
        ["--tls-cert", "a.pem"],
        ["--tls-key", "a.key"],
    ],
)
def test_a_wrong_way_to_show_it_is_a_wrong_command_line(cli, monkeypatch, arguments):
    monkeypatch.setenv("GUARDRAIL_TOKEN", "grk_s3cret")
    for command in (["worlds"], ["check", "--policy", "p", "--world", "w"], ["policy", "reload"]):
        result = cli(*command, *arguments)
        assert (result.code, result.out) == (2, "")
        assert "s3cret" not in result.err
