"""`python -m simulations validate`: every bound that has a theorem held against it, and what must fail seen to fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulations.figures import validation as figures
from simulations.runner.suite import Chunk, Result, Row
from simulations.validation import report, table
from simulations.validation.cases import groups
from simulations.validation.config import ValidateConfig
from simulations.validation.play import lanes_at_once, play


class ValidationSuite:
    """See `runner.suite.Suite`."""

    name = "validate"
    summary = "how often any bound was below the true harm, against what its theorem promises"
    config_type = ValidateConfig
    work_unit = "steps"

    def chunks(self, config: ValidateConfig) -> Sequence[Chunk]:
        """The runs of every group, cut so that hypotheses times runs fit the configured number."""
        made = []
        for number, group in enumerate(groups(config)):
            at_once = lanes_at_once(group, config.chunk)
            for first in range(0, group.lanes, at_once):
                count = min(at_once, group.lanes - first)
                made.append(
                    Chunk(
                        name=f"{number:03d}-{group.world}-{group.kernel}-{first}",
                        spec={"group": number, "first": first, "count": count},
                        work=count * group.horizon,
                    )
                )
        return made

    def run(self, config: ValidateConfig, chunk: Chunk) -> Result:
        """Play the runs of one chunk."""
        spec = chunk.spec
        return play(config, groups(config)[spec["group"]], spec["first"], spec["count"])

    def rows(self, config: ValidateConfig, results: Sequence[Result]) -> list[Row]:
        """The table."""
        of_group: dict[int, list[Result]] = {}
        for chunk, result in zip(self.chunks(config), results, strict=True):
            of_group.setdefault(chunk.spec["group"], []).append(result)
        made = groups(config)
        return table.in_order(
            [row for number in of_group for row in table.rows_of(config, made[number], of_group[number])]
        )

    def pictures(self, config: ValidateConfig, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Failure rates against delta, times to refutation, and the report page that holds them."""
        drawn = figures.draw(rows)
        return {**drawn, "report.html": report.page(config, rows, drawn).encode()}


SUITE = ValidationSuite()
