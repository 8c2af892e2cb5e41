"""The console in a real browser, against a real service."""

from __future__ import annotations

import re
import signal

import pytest
from budget_policies import SESSION, budgeted
from console_stage import wait_for
from playwright.sync_api import expect
from server_process import ROOT

from guardrail import Decision, NoVerdict
from guardrail.approvals import EscalationState

pytestmark = pytest.mark.slow

LOW, HIGH = {"kind": "low"}, {"kind": "high"}
LATE = budgeted("late", SESSION).replace(
    "decision: {reject_above: 0.5, budget: {per: session, total: 0.5}}",
    "decision: {reject_above: 0.5}\nreporting: {within: 1s, overdue: reject}",
)
TEMPLATES = ROOT / "guardrail" / "policy" / "templates"
HEAT = (TEMPLATES / "gaussian-linear" / "policy.yaml").read_text().replace("{{name}}", "heat")
PAYLOAD = "<img src=x onerror=\"alert('run')\">{{ 7 * 7 }}`${alert(1)}`"


@pytest.fixture(scope="module")
def stage(start_stage):
    return start_stage()


@pytest.fixture
def check(stage):
    """check(policy, world, action, ...) as the agent."""
    with stage.client("agent") as client:
        yield lambda policy, world, action, context=None, **more: client.check(
            policy=policy, world=world, context=context or {}, action=action, **more
        )


@pytest.fixture
def report(stage):
    with stage.client("reporter") as client:
        yield lambda policy, world, action, hurt: client.report(
            policy=policy, world=world, context={}, action=action, outcome=hurt
        )


def row(page, *texts):
    """The row of a table that holds all these texts."""
    rows = page.locator("tbody tr")
    for text in texts:
        rows = rows.filter(has_text=text)
    return rows


def options(page, place):
    """The options of the chart at a place, as the browser has them."""
    return page.locator(place).evaluate(
        """async (element) => {
            const ids = Object.keys(mounted_app.$refs).filter((name) => mounted_app.$refs[name]?.$el === element);
            return JSON.parse(JSON.stringify(mounted_app.$refs[ids[0]].chart.getOption().series));
        }"""
    )


class TestSigningIn:
    def test_a_wrong_key_is_refused_with_its_reason(self, stage, open_page):
        page = open_page(stage)
        expect(page).to_have_url(re.compile("/login"))
        page.get_by_label("Key or token").fill("guardrail_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("CREDENTIALS_INVALID")

    def test_one_comes_to_the_page_that_one_asked_for_and_can_leave(self, stage, open_page):
        page = open_page(stage, "viewer", "/faults")
        expect(page).to_have_title("Faults · Guardrail")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("alert")).to_contain_text("SIGNED_OUT")
        page.goto(f"{stage.address}/faults")
        expect(page).to_have_url(re.compile("/login"))

    def test_a_key_that_is_taken_out_of_the_callers_file_ends_the_session(self, stage, open_page, check):
        page = open_page(stage, "leaver")
        check("coin", "leaving", LOW)
        expect(row(page, "leaving")).to_be_visible()
        entry = stage.callers._entries["leaver"]
        stage.callers.remove("leaver").write()
        try:
            stage.reload()
            expect(page.get_by_role("alert")).to_contain_text("CREDENTIALS_INVALID")
            expect(page).to_have_url(re.compile("/login"))
        finally:
            stage.callers._entries["leaver"] = entry
            stage.callers.write()
            stage.reload()


class TestLive:
    def test_a_decision_appears_as_it_is_made(self, stage, open_page, check):
        page = open_page(stage, "viewer")
        expect(page.get_by_role("status")).to_contain_text("as of")
        verdict = check("coin", "lively", LOW)
        line = row(page, "lively")
        expect(line).to_contain_text("✕ REJECT")
        expect(line).to_contain_text("HARM_BOUND_ABOVE_REJECT")
        line.get_by_role("button", name="Open decision").click()
        dialog = page.locator(".card")
        for text in (verdict.decision_id, "the harm bound", "wild", "theorem", "independent", '"kind": "low"'):
            expect(dialog).to_contain_text(text)
        points = [point for series in options(page, ".chart")[:3] for point in series["data"]]
        assert verdict.decision_id in [point["id"] for point in points]

    def test_what_was_decided_before_is_there_and_can_be_filtered(self, stage, open_page, check):
        check("coin", "early", LOW)
        check("coin", "other-early", HIGH)
        page = open_page(stage, "viewer")
        expect(row(page, "other-early")).to_have_count(1)
        page.get_by_label("World contains").fill("other-e")
        expect(page.locator(".decisions tbody tr")).to_have_count(1)

    def test_shadow_decisions_are_marked_and_say_what_would_have_been(self, stage, open_page, check):
        assert check("watching", "shady", HIGH).accepted
        page = open_page(stage, "viewer")
        expect(row(page, "shady")).to_contain_text("SHADOW, would be ✕ REJECT")
        row(page, "shady").get_by_role("button").click()
        expect(page.locator(".card")).to_contain_text("SHADOW: this policy only watches")

    def test_pause_holds_the_list(self, stage, open_page, check):
        page = open_page(stage, "viewer")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status")).to_contain_text("PAUSED")
        check("coin", "meanwhile", LOW)
        with stage.client("viewer") as client:
            wait_for(lambda: any(one.verdict.world == "meanwhile" for one in client.decisions(limit=50)))
        expect(row(page, "meanwhile")).to_have_count(0)
        page.get_by_role("button", name="Go on").click()
        expect(row(page, "meanwhile")).to_have_count(1)

    def test_decisions_differ_without_colour(self, stage, open_page, check):
        check("coin", "colours", LOW)
        check("gate", "colours", HIGH)
        check("budgeted", "colours", LOW, session="colours")
        check("watching", "colours", HIGH)
        page = open_page(stage, "viewer")
        page.emulate_media(forced_colors="active")
        page.get_by_label("World contains").fill("colours")
        expect(page.locator(".decisions tbody tr")).to_have_count(4)
        words = page.locator(".decision").all_inner_texts()
        assert sorted(words) == ["SHADOW, would be ✕ REJECT", "▲ ESCALATE", "✓ ACCEPT", "✕ REJECT"]
        shapes = [(series["symbol"], series["itemStyle"]["borderWidth"]) for series in options(page, ".chart")[:6]]
        assert len(set(shapes)) == 6
        assert options(page, ".chart")[6]["lineStyle"]["type"] == "dashed"

    def test_what_an_agent_sends_is_text(self, stage, open_page, check):
        verdict = check("gate", "markup", HIGH, {"note": PAYLOAD})
        assert verdict.decision is Decision.ESCALATE
        page = open_page(stage, "person")
        row(page, "markup").get_by_role("button").click()
        expect(page.locator(".card")).to_contain_text("onerror")
        expect(page.locator(".card")).to_contain_text("{{ 7 * 7 }}")
        page.goto(f"{stage.address}/escalations")
        expect(page.locator(f'[data-escalation="{verdict.decision_id}"]')).to_contain_text("onerror")
        assert page.locator("img[src=x]").count() == 0


class TestWorlds:
    def test_the_posterior_and_its_plausible_set(self, stage, open_page, check, report):
        for place in range(30):
            report("coin", "posterior", HIGH, place % 10 == 0)
        check("coin", "posterior", LOW)
        page = open_page(stage, "viewer", "/world/coin/posterior")
        expect(page.locator("dl").first).to_contain_text("30")
        table = page.locator(".hypotheses")
        expect(row(table, "mild")).to_contain_text("● plausible")
        expect(row(table, "wild")).to_contain_text("○ ruled out")
        inside, outside = options(page, ".chart.tall")
        masses = [
            bar["value"] for series in (inside, outside) for bar in series["data"] if bar and bar["value"] is not None
        ]
        assert sum(masses) == pytest.approx(1.0)
        assert inside["itemStyle"]["decal"] != outside["itemStyle"]["decal"]
        report("coin", "posterior", HIGH, False)
        expect(page.locator("dl").first).to_contain_text("31")

    def test_the_list_leads_to_the_world(self, stage, open_page, report):
        report("coin", "listed/with:slash", LOW, False)
        page = open_page(stage, "viewer", "/worlds")
        page.get_by_role("link", name="listed/with:slash").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("listed/with:slash")

    def test_another_callers_world_is_refused_with_the_services_reason(self, stage, open_page, report):
        report("coin", "A", LOW, False)
        report("coin", "B", LOW, False)
        page = open_page(stage, "only-a", "/world/coin/A")
        expect(page.locator("dl").first).to_contain_text("Observations")
        answer = page.goto(f"{stage.address}/world/coin/B")
        assert answer.status == 403
        expect(page.locator("#content").get_by_role("alert")).to_contain_text("PERMISSION_DENIED")
        expect(page.get_by_text("Nothing here for you")).to_be_visible()
        assert "Observations" not in page.content()
        page.goto(f"{stage.address}/worlds")
        expect(row(page, "A")).not_to_have_count(0)
        expect(row(page, "B")).to_have_count(0)

    def test_a_world_that_is_not_there(self, stage, open_page):
        page = open_page(stage, "viewer")
        assert page.goto(f"{stage.address}/world/coin/nowhere").status == 404
        expect(page.locator("#content").get_by_role("alert")).to_contain_text("WORLD_NOT_FOUND")


class TestBudgets:
    def test_what_a_session_has_spent(self, stage, open_page, check):
        for _ in range(3):
            check("budgeted", "purse", LOW, session="spender")
        page = open_page(stage, "viewer", "/budgets")
        page.get_by_role("button", name="Show spender").click()
        expect(page.locator("dl")).to_contain_text("0.375 of 0.5, 75%")
        spent, left = options(page, ".spent")
        assert (spent["name"], left["name"]) == ("spent 0.375", "left 0.125")
        assert spent["data"][0] == pytest.approx(0.375)
        assert spent["itemStyle"]["decal"] != left["itemStyle"]["decal"]
        check("budgeted", "purse", LOW, session="spender")
        expect(page.locator("dl")).to_contain_text("0.5 of 0.5, 100%")

    def test_a_session_that_is_not_there(self, stage, open_page):
        page = open_page(stage, "viewer", "/budgets")
        for label, text in (("Policy", "budgeted"), ("World", "purse"), ("Session", "nobody")):
            page.get_by_label(label).fill(text)
        page.get_by_role("button", name="Show", exact=True).first.click()
        expect(page.locator("#content").get_by_role("alert")).to_contain_text("SESSION_NOT_FOUND")


class TestEscalations:
    def test_an_approval_in_the_browser_lets_the_agent_pass_once(self, stage, open_page, check):
        asked = check("gate", "approving", HIGH, {"note": "please"})
        page = open_page(stage, "person", "/escalations")
        card = page.locator(f'[data-escalation="{asked.decision_id}"]')
        for text in ("agent", "0.15", "please", "HARM_BOUND_ABOVE_ESCALATE", "expires in"):
            expect(card).to_contain_text(text)
        card.get_by_role("button", name="Approve").click()
        page.get_by_label("Note for the record").fill("seen by me")
        page.get_by_role("button", name="Approve it").click()
        expect(row(page, "approving")).to_contain_text("✓ APPROVED")
        expect(row(page, "approving")).to_contain_text("seen by me")
        again = check("gate", "approving", HIGH, {"note": "please"}, approval=asked.decision_id)
        assert again.accepted
        assert again.approval.approver == "person"
        expect(row(page, "approving")).to_contain_text("✓ USED")
        assert not check("gate", "approving", HIGH, {"note": "please"}, approval=asked.decision_id).accepted

    def test_a_denial(self, stage, open_page, check):
        asked = check("gate", "denying", HIGH)
        page = open_page(stage, "person", "/escalations")
        page.locator(f'[data-escalation="{asked.decision_id}"]').get_by_role("button", name="Deny").click()
        page.get_by_role("button", name="Deny it").click()
        expect(row(page, "denying")).to_contain_text("✕ DENIED")
        with stage.client("person") as client:
            assert [one.state for one in client.escalations(world="denying", state=None)] == [EscalationState.DENIED]

    def test_nobody_approves_what_it_asked_for_itself(self, stage, open_page):
        with stage.client("both") as client:
            asked = client.check(policy="gate", world="selfish", context={}, action=HIGH)
        page = open_page(stage, "both", "/escalations")
        page.locator(f'[data-escalation="{asked.decision_id}"]').get_by_role("button", name="Approve").click()
        page.get_by_role("button", name="Approve it").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("SELF_APPROVAL")

    def test_a_viewer_may_look_and_not_approve(self, stage, open_page, check):
        asked = check("gate", "looking", HIGH)
        page = open_page(stage, "viewer", "/escalations")
        page.locator(f'[data-escalation="{asked.decision_id}"]').get_by_role("button", name="Approve").click()
        page.get_by_role("button", name="Approve it").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("PERMISSION_DENIED")
        with stage.client("person") as client:
            assert [one.state for one in client.escalations(world="looking")] == [EscalationState.PENDING]


class TestFaults:
    def test_policy_files_that_cannot_be_loaded_are_told_on_every_page_until_they_can(self, stage, open_page):
        page = open_page(stage, "viewer")
        expect(page.locator(".banner")).to_be_hidden()
        path = stage.folder / "policies" / "coin" / "policy.yaml"
        good = path.read_text()
        path.write_text("schema: guardrail/v1\n")
        try:
            stage.reload()
            expect(page.locator(".banner")).to_contain_text("guardrail.policies")
            page.get_by_role("link", name="Faults").click()
            expect(row(page, "Policies")).to_contain_text("✕ NOT SERVING")
        finally:
            path.write_text(good)
            stage.reload()
        expect(row(page, "Policies")).to_contain_text("✓ SERVING")
        expect(page.locator(".banner")).to_be_hidden()

    def test_the_parts_that_health_knows_are_shown(self, stage, open_page):
        page = open_page(stage, "viewer", "/faults")
        for part in ("Checks", "Policies", "Decision log", "Following", "Console"):
            expect(row(page, part)).to_contain_text("✓ SERVING")
        expect(page.get_by_text("worlds were looked at")).to_be_visible()


@pytest.fixture(scope="module")
def faulty(start_stage):
    """A service for faults; SIGUSR1 holds its event loop up, and nothing else."""
    hang = "import signal, time; signal.signal(signal.SIGUSR1, lambda *more: time.sleep(6.0))"
    return start_stage(before=hang, callers=False, more={"late": LATE, "heat": HEAT})


class TestFaultsOfAService:
    """A service of its own: what is wrong with it is told on every page."""

    def test_a_service_that_hangs_is_told_and_nothing_old_is_shown_as_live(self, faulty, open_page):
        page = open_page(faulty)
        expect(page.get_by_role("status")).to_contain_text("as of")
        faulty.process.process.send_signal(signal.SIGUSR1)
        expect(page.locator(".banner")).to_contain_text("UNREACHABLE", timeout=10_000)
        expect(page.get_by_role("status")).to_contain_text("STALE")
        expect(page.locator(".live-data")).to_have_class(re.compile("stale"))
        expect(page.locator(".banner")).to_be_hidden(timeout=20_000)
        expect(page.get_by_role("status")).not_to_contain_text("STALE")
        expect(page.locator(".live-data")).not_to_have_class(re.compile("stale"))

    def test_a_refuted_world_an_overdue_outcome_and_a_stale_policy(self, faulty, open_page):
        with faulty.client() as client:
            for action, hurt in ((HIGH, False), (LOW, True)):  # the first rules out two of the coins, then the third
                for _ in range(60):
                    client.report(policy="coin", world="refuted", context={}, action=action, outcome=hurt)
            assert client.world("coin", "refuted").posterior.refuted
            client.check(policy="coin", world="refuted", context={}, action=LOW)
            asked = client.check(policy="late", world="slow", context={}, action=LOW)
            assert asked.accepted
            page = open_page(faulty, path="/faults")
            expect(page.locator(".banner")).to_contain_text("guardrail.outcomes")
            wait_for(lambda: client.world("late", "slow").awaited.overdue == 1)
            path = faulty.folder / "policies" / "gate" / "policy.yaml"
            path.write_text("schema: guardrail/v1\n")
            faulty.reload()
            client.check(policy="budgeted", world="noted", context={}, action=LOW, session="s")
            page.reload()
            for text in ("CLASS_REFUTED", "OUTCOME_OVERDUE", "POLICY_STALE"):
                expect(page.locator("#content")).to_contain_text(text)
            page.goto(f"{faulty.address}/world/late/slow")
            expect(page.locator("#content")).to_contain_text("✕ 1 OVERDUE")
            expect(page.locator("#content")).to_contain_text(asked.decision_id)
            page.goto(f"{faulty.address}/world/coin/refuted")
            expect(page.locator("#content")).to_contain_text("REFUTED")

    def test_the_parameters_of_a_continuous_class_with_their_ranges(self, faulty, open_page):
        tried = ((20.0, 2.0, 60.0), (30.0, 1.0, 50.0), (20.0, 4.0, 80.0))
        with faulty.client() as client:
            for ambient, power, outcome in 4 * tried:
                client.report(
                    policy="heat",
                    world="oven",
                    context={"ambient_c": ambient},
                    action={"power_kw": power},
                    outcome=outcome,
                )
            told = client.world("heat", "oven", hypotheses=10).posterior.detail.parameters
        page = open_page(faulty, path="/world/heat/oven")
        for parameter in told:
            expect(row(page.locator(".parameters"), parameter.name)).to_contain_text(f"{parameter.mean:.4g}")
        plausible, spread, mean = options(page, ".chart.tall")
        assert [x for x, _ in mean["data"]] == pytest.approx([parameter.mean for parameter in told])
        assert len(spread["data"]) == 3 * len(told)
        ends = [point[0] for point in plausible["data"] if point is not None]
        assert ends == pytest.approx([end for one in told for end in (one.plausible_low, one.plausible_high)])

    def test_calibration(self, faulty, open_page):
        with faulty.client() as client:
            for _ in range(3):
                asked = client.check(policy="budgeted", world="compared", context={}, action=LOW, session="c")
                if asked.accepted:
                    client.report(
                        policy="budgeted",
                        world="compared",
                        context={},
                        action=LOW,
                        outcome=False,
                        observation_id=asked.decision_id,
                    )
            wait_for(lambda: client.world("budgeted", "compared").calibration is not None)
            page = open_page(faulty, path="/world/budgeted/compared")
            expect(page.locator("#content")).to_contain_text("✓ no alarm")
            assert [bar["value"] is not None for bar in options(page, ".chart.low")[0]["data"]] == [True, True, True]


class TestLaptops:
    @pytest.mark.parametrize("size", [(1280, 720), (1366, 768)])
    def test_nothing_has_to_be_scrolled_sideways(self, stage, open_page, check, report, size):
        check("gate", "a-rather-long-name-of-a-world/with:parts@in-it." + 40 * "x", HIGH, {"note": 300 * "w"})
        report("coin", "wide", LOW, False)
        page = open_page(stage, "person", size=size)
        for path in ("/", "/worlds", "/world/coin/wide", "/budgets", "/escalations", "/faults"):
            page.goto(f"{stage.address}{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.get_by_role("navigation")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path

    def test_the_keyboard_reaches_the_details(self, stage, open_page, check):
        check("coin", "keyboard", LOW)
        page = open_page(stage, "viewer")
        page.get_by_label("World contains").fill("keyboard")
        expect(page.locator(".decisions tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Open decision").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".card")).to_be_hidden()


def test_a_check_without_a_service_is_no_verdict_whatever_the_console_shows(start_stage, open_page):
    stage = start_stage(callers=False)
    page = open_page(stage)
    with stage.client() as client:
        client.check(policy="coin", world="last", context={}, action=LOW)
        expect(row(page, "last")).to_be_visible()
        stage.process.kill()
        expect(page.get_by_text("STALE").or_(page.locator("#popup"))).to_be_visible()
        with pytest.raises(NoVerdict):
            client.check(policy="coin", world="last", context={}, action=LOW, timeout=1.0)
