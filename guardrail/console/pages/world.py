"""Worlds: a list of them, and one with its posterior."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from guardrail.console.charts import bounds_over_time, evidence, parameters, posterior
from guardrail.console.pages.decision import Detail
from guardrail.console.pages.frame import (
    Frame,
    Freshness,
    House,
    frame,
    or_refused,
    pairs_list,
    section,
    table,
    world_address,
)
from guardrail.console.pages.live import CHARTED, decisions_table
from guardrail.console.rows import Wanted, decision_rows
from guardrail.console.world_rows import (
    awaited_pairs,
    calibration_pairs,
    hypothesis_rows,
    parameter_rows,
    world_pairs,
)
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision
    from guardrail.v1 import guardrail_pb2 as pb

REFRESH_SECONDS = 2.0

HYPOTHESES = (
    ("name", "Hypothesis"),
    ("mass", "Posterior mass"),
    ("plausible", "Plausible set"),
    ("parameters", "Parameters"),
)
PARAMETERS = (
    ("name", "Parameter"),
    ("mean", "Posterior mean"),
    ("deviation", "Standard deviation"),
    ("plausible", "Plausible range"),
)


class WorldView:
    """The page's moving parts: the world is asked for again and again, its decisions come by the feed."""

    def __init__(self, page: Frame, world: pb.World, before: list[LoggedDecision]) -> None:
        self._page, self._policy, self._name, self._before = page, world.policy, world.world, before
        self._told: bytes | None = None
        self._version = -1
        detail = Detail(page.desk)
        self._stamp = ui.label("").classes("stamp").props('role="status"')
        self._area = ui.element("div").classes("live-data")
        with self._area:
            with ui.element("div").classes("columns"):
                with section("At a glance"):
                    self._glance: Any = ui.element("div")
                self._posterior: Any = section("Posterior")
                with self._posterior:
                    self._plot: Any = ui.element("div")
            with section("Bounds against the threshold"):
                self._chart = ui.echart(bounds_over_time([], logarithmic=False)).classes("chart flat")
                self._decisions = decisions_table(detail)
        self._freshness = Freshness(self._stamp, self._area)
        self._show(world)
        self._follow()
        page.each_tick(self._follow)
        ui.timer(REFRESH_SECONDS, self._refresh)

    async def _refresh(self) -> None:
        try:
            world = await self._page.desk.world(self._policy, self._name)
        except GuardrailError as error:
            self._freshness.stale(error.reason)
        else:
            self._show(world)

    def _show(self, world: pb.World) -> None:
        self._freshness.known()
        told = world.SerializeToString(deterministic=True)
        awaits = world.HasField("awaited") and world.awaited.HasField("oldest_due")
        if told == self._told and not awaits:
            return
        self._glance.clear()
        with self._glance:
            pairs_list(world_pairs(world))
            for title, pairs in (
                ("Awaited outcomes", awaited_pairs(world, time.time())),
                ("Calibration", calibration_pairs(world)),
            ):
                if pairs:
                    with ui.element("h2").classes("more"):
                        ui.label(title)
                    pairs_list(pairs)
            if world.HasField("calibration"):
                ui.echart(evidence(world)).classes("chart low flat")
        if told == self._told:
            return
        self._told = told
        self._plot.clear()
        with self._plot:
            if world.hypotheses:
                ui.echart(posterior(world)).classes("chart flat tall")
                table(HYPOTHESES, hypothesis_rows(world), "none").classes("wrap hypotheses")
            elif world.parameters:
                ui.echart(parameters(world)).classes("chart flat tall")
                table(PARAMETERS, parameter_rows(world), "none").classes("wrap parameters")
            else:
                ui.label("The service lists no hypotheses of this class.")

    def _follow(self) -> None:
        feed = self._page.desk.feed
        if feed.version == self._version:
            return
        self._version = feed.version
        own = feed.about(self._policy, self._name, self._before)
        self._decisions.rows = decision_rows(own, Wanted())
        self._chart.options.update(bounds_over_time(own[:CHARTED], logarithmic=False))
        self._chart.update()


def add_to(house: House) -> None:
    """Add the pages."""

    @ui.page("/worlds", response_timeout=10.0)
    async def worlds(request: Request) -> None:
        with frame(house, request, "Worlds", "/worlds") as page:
            place = ui.element("div")
            found = await or_refused(page.desk.worlds, place)
            if found is None:
                return
            seen = {(one.policy, one.world): (one.observations, one.generation) for one in found}
            for one in page.desk.feed.newest():
                seen.setdefault((one.verdict.policy, one.verdict.world), (0, one.generation))
            if not seen:
                ui.label("No world has observations yet, and nothing was decided.")
                return
            rows = [
                {
                    "id": f"{policy}\n{world}",
                    "policy": policy,
                    "world": world,
                    "observations": str(observations),
                    "generation": str(generation),
                    "address": world_address(policy, world),
                }
                for (policy, world), (observations, generation) in sorted(seen.items())
            ]
            columns = (
                ("world", "World"),
                ("policy", "Policy"),
                ("observations", "Observations"),
                ("generation", "Generation"),
            )
            made = table(columns, rows, "none")
            made.add_slot(
                "body-cell-world",
                '<q-td :props="props"><a :href="props.row.address">{{ props.row.world }}</a></q-td>',
            )

    @ui.page("/world/{policy}/{world:path}", response_timeout=10.0)
    async def one_world(request: Request, policy: str, world: str) -> None:
        with frame(house, request, f"World {world} of {policy}", "/worlds") as page:
            place = ui.element("div")
            found = await or_refused(lambda: page.desk.world(policy, world), place)
            if found is not None:
                WorldView(page, found, await page.desk.decisions(policy, world, CHARTED))
