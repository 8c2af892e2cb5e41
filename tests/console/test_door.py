"""What the console lets in: names, origins, methods, sessions, and what its answers say to a browser."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from console_stage import wait_for
from security_files import LOCAL, Authority

from guardrail.console.sessions import MAX_FAILURES


@pytest.fixture(scope="module")
def stage(start_stage):
    return start_stage()


def cookie(answer):
    """What a browser would send back."""
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def signed_in(stage):
    return cookie(stage.sign_in(stage.callers.keys["person"]))


class TestSessions:
    def test_without_one_there_is_the_login_page_and_nothing_else(self, stage, signed_in):
        answer = stage.ask("GET", "/world/coin/A")
        assert (answer.status, answer.headers["location"]) == (303, "/login?next=%2Fworld%2Fcoin%2FA")
        assert stage.ask("GET", "/login").status == 200
        for path in ("/_nicegui/3.18.0/static/nicegui.js", "/_nicegui_ws/socket.io/"):
            assert stage.ask("GET", path).status in (401, 404)
        for path in ("/docs", "/openapi.json", "/redoc", "/live", "/_nicegui"):
            assert stage.ask("GET", path).status == 303
            assert stage.ask("GET", path, headers={"Cookie": signed_in}).status == 404

    def test_a_key_gives_a_cookie_that_scripts_and_other_sites_do_not_get(self, stage):
        answer = stage.sign_in(stage.callers.keys["viewer"], next="/faults")
        assert (answer.status, answer.headers["location"]) == (303, "/faults")
        said = answer.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        assert stage.ask("GET", "/faults", headers={"Cookie": cookie(answer)}).status == 200

    @pytest.mark.parametrize(
        "target",
        ["//evil.example", "https://evil.example", "/\\evil.example", "/login", "/world/../login", "javascript:1"],
    )
    def test_one_is_sent_nowhere_else_after_signing_in(self, stage, target):
        assert stage.sign_in(stage.callers.keys["viewer"], next=target).headers["location"] == "/"

    def test_signing_out_ends_it(self, stage):
        mine = cookie(stage.sign_in(stage.callers.keys["viewer"]))
        headers = {"Cookie": mine, "Origin": stage.address}
        answer = stage.ask("POST", "/logout", headers=headers, form={})
        assert answer.headers["location"] == "/login?why=SIGNED_OUT"
        assert stage.ask("GET", "/", headers={"Cookie": mine}).status == 303

    def test_made_up_cookies_open_nothing(self, stage, signed_in):
        name, _, value = signed_in.partition("=")
        for made_up in ("", "x", value[:-1], f"{value}x", value.swapcase()):
            assert stage.ask("GET", "/", headers={"Cookie": f"{name}={made_up}"}).status == 303

    @pytest.mark.parametrize("token", ["guardrail_wrong", "a b", "ä", "x" * 20_000, "<script>alert(1)</script>"])
    def test_what_is_no_credential_opens_nothing_and_is_not_repeated(self, patient_stage, token):
        answer = patient_stage.sign_in(token)
        assert answer.status in (401, 413)
        assert "CREDENTIALS_INVALID" in answer.text
        assert "set-cookie" not in answer.headers
        assert token not in answer.text

    def test_credentials_are_in_no_page_no_address_and_no_log(self, stage, signed_in):
        key = stage.callers.keys["person"]
        for path in ("/", "/worlds", "/budgets", "/escalations", "/faults", "/login"):
            answer = stage.ask("GET", path, headers={"Cookie": signed_in})
            assert answer.status == 200
            assert key not in answer.text
        assert key not in stage.process.said()
        assert signed_in.partition("=")[2] not in stage.process.said()


@pytest.fixture(scope="module")
def patient_stage(start_stage):
    """A service for failed attempts."""
    return start_stage()


def test_attempts_are_limited(start_stage):
    stage = start_stage()
    for _ in range(MAX_FAILURES):
        assert stage.sign_in("wrong").status == 401
    answer = stage.sign_in(stage.callers.keys["viewer"])
    assert answer.status == 429
    assert "LOGIN_LIMITED" in answer.text
    with stage.client("viewer") as client:
        assert client.policies()


def test_one_session_does_not_open_pages_without_end(start_stage):
    stage = start_stage(before="import guardrail.console.door as door; door.MAX_PAGES = 3")
    mine = {"Cookie": cookie(stage.sign_in(stage.callers.keys["viewer"]))}
    assert [stage.ask("GET", "/faults", headers=mine).status for _ in range(4)] == [200, 200, 200, 429]
    other = {"Cookie": cookie(stage.sign_in(stage.callers.keys["person"]))}
    assert stage.ask("GET", "/faults", headers=other).status == 200


class TestNamesAndOrigins:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", ""]
    )
    def test_a_name_that_lies_is_refused(self, stage, signed_in, host):
        answer = stage.ask("GET", "/", headers={"Cookie": signed_in, "Host": host.format(port=stage.console_port)})
        assert (answer.status, answer.text.partition(":")[0]) == (421, "HOST_UNKNOWN")

    def test_names_of_this_machine_are_answered(self, stage):
        for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
            assert stage.ask("GET", "/login", host=f"{name}:{stage.console_port}").status == 200

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}"])
    def test_other_sites_can_neither_sign_in_nor_out_nor_look(self, stage, signed_in, origin):
        headers = {"Origin": origin.format(port=stage.console_port)}
        assert stage.sign_in(stage.callers.keys["viewer"], headers=headers).status == 403
        headers["Cookie"] = signed_in
        assert stage.ask("POST", "/logout", headers=headers, form={}).status == 403
        answer = stage.ask("GET", "/", headers=headers)
        assert (answer.status, answer.text.partition(":")[0]) == (403, "ORIGIN_UNKNOWN")
        assert not any(name.startswith("access-control") for name in answer.headers)

    def test_a_form_without_an_origin_is_refused(self, stage):
        answer = stage.ask("POST", "/login", form={"token": stage.callers.keys["viewer"]})
        assert (answer.status, answer.text.partition(":")[0]) == (403, "ORIGIN_MISSING")

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
    def test_nothing_else_can_be_changed(self, stage, signed_in, method):
        answer = stage.ask(method, "/", headers={"Cookie": signed_in, "Origin": stage.address}, form={})
        assert answer.status == 405


class TestWebSockets:
    def upgrade(self, stage, page, **headers):
        """Ask for the WebSocket of a page; gives the status."""
        found = re.search(r'"client_id": ?"([0-9a-f-]+)"', page)
        asked = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Origin": stage.address,
            **headers,
        }
        client = "00000000-0000-0000-0000-000000000000" if found is None else found.group(1)
        path = f"/_nicegui_ws/socket.io/?EIO=4&transport=websocket&client_id={client}"
        return stage.ask("GET", path, headers=asked).status

    def test_only_the_pages_own_session_gets_one(self, stage, signed_in):
        page = stage.ask("GET", "/", headers={"Cookie": signed_in}).text
        assert "client_id" in page
        other = cookie(stage.sign_in(stage.callers.keys["viewer"]))
        assert self.upgrade(stage, page) == 403
        assert self.upgrade(stage, page, Cookie=other) == 403
        assert self.upgrade(stage, "", Cookie=signed_in) == 403
        assert self.upgrade(stage, page, Cookie=signed_in, Origin="https://evil.example") == 403
        assert self.upgrade(stage, page, Cookie=signed_in, Origin=None) == 403

    def test_polling_is_not_answered(self, stage, signed_in):
        answer = stage.ask("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", headers={"Cookie": signed_in})
        assert answer.status == 404


class TestHeaders:
    def test_every_answer_tells_a_browser_to_be_strict(self, stage, signed_in):
        for path in (
            "/",
            "/login",
            "/nothing-here",
            "/world/coin",
            "/_nicegui/3.18.0/static/nicegui.js",
            "/favicon.ico",
        ):
            headers = stage.ask("GET", path, headers={"Cookie": signed_in}).headers
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            policy = headers["content-security-policy"]
            for part in ("default-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"):
                assert part in policy
            assert "server" not in headers

    def test_scripts_run_only_with_the_pages_nonce(self, stage, signed_in):
        answers = [stage.ask("GET", "/", headers={"Cookie": signed_in}) for _ in range(2)]
        nonces = [re.search("'nonce-([^']+)'", one.headers["content-security-policy"]).group(1) for one in answers]
        assert nonces[0] != nonces[1]
        for nonce, answer in zip(nonces, answers, strict=True):
            assert "script-src 'self' 'nonce-" in answer.headers["content-security-policy"]
            scripts = re.findall("<script[^>]*>", answer.text)
            assert scripts
            assert all(f'nonce="{nonce}"' in script for script in scripts)
            assert answer.headers["cache-control"] == "no-store"
        assert "script-src" not in stage.ask("GET", "/login").headers["content-security-policy"]

    def test_nothing_is_fetched_from_elsewhere(self, stage, signed_in):
        page = stage.ask("GET", "/", headers={"Cookie": signed_in}).text
        fetched = re.findall(r'(?:src|href)="(https?:[^"]+|//[^"]+)"|url\("?(https?:[^")]+)', page)
        assert fetched == []

    def test_a_prefix_from_outside_is_not_written_into_pages(self, stage, signed_in):
        headers = {"Cookie": signed_in, "X-Forwarded-Prefix": "/elsewhere"}
        assert "/elsewhere" not in stage.ask("GET", "/", headers=headers).text


def test_it_serves_https_with_the_services_certificate(start_stage, tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority"))
    files = authority.issue("server", LOCAL)
    stage = start_stage(tls_certificate=str(files.certificate), tls_key=str(files.key))
    answer = stage.sign_in(stage.callers.keys["viewer"])
    assert answer.status == 303
    said = answer.headers["set-cookie"]
    assert said.startswith("__Host-guardrail-console-")
    assert "secure" in said.lower()
    assert stage.ask("GET", "/", headers={"Cookie": cookie(answer)}).status == 200


def test_a_reverse_proxy_is_answered_under_the_name_that_was_given(start_stage):
    stage = start_stage(console_origins=["https://guardrail.example"])
    headers = {"Origin": "https://guardrail.example", "Host": "guardrail.example"}
    answer = stage.sign_in(stage.callers.keys["viewer"], headers=headers)
    assert answer.status == 303
    assert answer.headers["set-cookie"].startswith("__Host-")
    headers["Cookie"] = cookie(answer)
    assert stage.ask("GET", "/", headers=headers).status == 200
    assert stage.ask("GET", "/", headers={**headers, "Origin": "https://other.example"}).status == 403


def test_where_callers_are_not_told_apart_nobody_signs_in(start_stage):
    stage = start_stage(callers=False)
    answer = stage.ask("GET", "/")
    assert answer.status == 200
    assert "callers are not told apart" in answer.text
    assert stage.ask("GET", "/", host="evil.example").status == 421


def test_the_way_to_the_service_is_this_users_only_and_goes_with_it(start_stage, tmp_path):
    before = f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}"
    stage = start_stage(before=before)
    (folder,) = tmp_path.glob("guardrail-console-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_ISSOCK((folder / "service").stat().st_mode)
    stage.close()
    assert not folder.exists()


def test_nothing_is_written_where_it_runs(start_stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage = start_stage()
    answer = stage.sign_in(stage.callers.keys["viewer"])
    assert stage.ask("GET", "/", headers={"Cookie": cookie(answer)}).status == 200
    stage.close()
    assert list(tmp_path.iterdir()) == []


DIE = """
import guardrail.console.web as web

async def die(self, *more):
    raise OSError("the console's loop broke")

web.Console._serve = die
"""


def test_checks_go_on_without_the_console(start_stage):
    stage = start_stage(before=DIE, callers=False)
    wait_for(lambda: "console_died" in stage.process.said())
    with stage.client() as client:
        assert client.check(policy="coin", world="on", context={}, action={"kind": "low"}).harm_bound == 0.3
    status = health(stage, "guardrail.console")
    assert (status, health(stage, "")) == ("NOT_SERVING", "SERVING")


HANG = """
import asyncio, time
import guardrail.console.web as web

web.SILENT_SECONDS = 1.0
web.CLOSE_SECONDS = 0.5

async def hang(self, *more):
    time.sleep(3_600)

web.Console._serve = hang
"""


def test_a_console_that_hangs_holds_nobody_up(start_stage):
    stage = start_stage(before=HANG, callers=False)
    wait_for(lambda: health(stage, "guardrail.console") == "NOT_SERVING")
    with stage.client() as client:
        assert client.check(policy="coin", world="on", context={}, action={"kind": "low"}).harm_bound == 0.3
    assert health(stage, "") == "SERVING"
    stage.close()
    assert "console_left_behind" in stage.process.said()


def health(stage, name):
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{stage.port}") as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def test_it_is_off_by_default(start_stage):
    stage = start_stage(console_listen=None, callers=False)
    with pytest.raises(ConnectionRefusedError):
        stage.ask("GET", "/")
    assert "console" not in stage.process.said().partition("serving")[0]
    loaded = Path(f"/proc/{stage.process.process.pid}/maps").read_text()
    assert "orjson" not in loaded  # which NiceGUI loads


def test_without_its_extra_the_service_says_what_to_install(start_stage):
    with pytest.raises(
        RuntimeError, match=r"the web console needs the 'console' extra: pip install 'guardrail\[console\]'"
    ):
        start_stage(before="import sys; sys.modules['nicegui'] = None")


def test_an_address_that_is_taken_is_refused(start_stage, stage):
    with pytest.raises(RuntimeError, match=f"cannot serve the console on 127.0.0.1:{stage.console_port}"):
        start_stage(console_listen=f"127.0.0.1:{stage.console_port}")
