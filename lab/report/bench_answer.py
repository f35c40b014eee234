"""The answer of `lab bench` in one line for each workload: the best models, the worst one, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.base.units import show_share
from lab.experiments.bench.findings import Findings, Row, choose_costs
from lab.experiments.bench.plan import CLOSED
from lab.metrics.estimates import Estimate
from lab.report.charts.palette import Tone

# A model below this share of the best rate is far behind; one above this multiple of the least CPU is expensive.
FAR_BELOW = 0.5
_EXPENSIVE = 1.5

# More names than these are counted.
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """The best models under a workload and the worst one; empty if there is none.

    Args:
        best: names, the cheapest first.
        why_best: the reason in a few words.
        worst: a name.
        why_worst: the reason in a few words.
    """

    best: tuple[str, ...] = ()
    why_best: str = ""
    worst: str = ""
    why_worst: str = ""

    @property
    def names(self) -> str:
        """The best models, in a line that is not too long."""
        more = len(self.best) - _MOST_NAMES
        return ", ".join(self.best[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

    def tone(self, model: str) -> Tone:
        """Return the tone of a model in all charts of the workload."""
        return Tone.BLUE if model in self.best else Tone.ORANGE if model == self.worst else Tone.GREY


def find_answer(findings: Findings, workload: str) -> Answer:
    rows = [row for row in findings.list_rows(workload, CLOSED) if row.found]
    costs = {row.model: row for row in choose_costs(findings, workload) if row.found}
    sound = [row for row in rows if not row.failed]
    ranks = findings.rank(sound, "rate")
    cost_ranks = findings.rank([costs[row.model] for row in sound if row.model in costs], "cpu_us")
    rates = {row.model: found for row in rows if (found := row.read("rate"))}
    # A lower bound far below the best rate is no reason to recommend a model.
    first = [
        model
        for model, (best, _) in ranks.items()
        if best == 1 and rates[model].middle >= FAR_BELOW * max(rates[other].middle for other in ranks)
    ]
    cheapest = [model for model, (best, _) in cost_ranks.items() if best == 1]
    best, why = _choose_best(first, cheapest, cost_ranks)
    cost_of = {model: found for model, row in costs.items() if (found := row.read("cpu_us"))}
    worst = _choose_worst(rows, [*best, *first], rates, cost_of, cost_ranks)
    if worst is None:
        return Answer(best, why)
    return Answer(best, why, worst.model, _explain_worst(worst, rates, cost_of))


def _choose_best(
    first: Sequence[str], cheapest: Sequence[str], costs: Mapping[str, tuple[int, int]]
) -> tuple[tuple[str, ...], str]:
    """Return the models that are among the fastest and the cheapest; else the cheapest of the fastest."""
    if both := [model for model in cheapest if model in first]:
        return tuple(both), "none is measurably faster, none cheaper"
    if not first:
        return (), ""
    known = {model: costs[model][0] for model in first if model in costs}
    least = min(known.values(), default=0)
    chosen = [model for model in first if known.get(model, 0) == least]
    return tuple(chosen), f"highest rate; least CPU per request: {', '.join(cheapest) or 'not known'}"


def _choose_worst(
    rows: Sequence[Row],
    good: Sequence[str],
    rates: Mapping[str, Estimate],
    costs: Mapping[str, Estimate],
    cost_ranks: Mapping[str, tuple[int, int]],
) -> Row | None:
    """Return the model with failures, else the one far behind in rate, else the most expensive; None if none is."""
    if failing := [row for row in rows if row.failed]:
        return max(failing, key=lambda row: row.failed_ratio)
    others = [row for row in rows if row.model not in good]
    if behind := [row for row in others if _is_far_behind(row.model, rates)]:
        return min(behind, key=lambda row: rates[row.model].middle)
    expensive = [
        row
        for row in rows
        if _is_expensive(row.model, costs) and row.model in cost_ranks and cost_ranks[row.model][0] > 1
    ]
    return max(expensive, key=lambda row: costs[row.model].middle, default=None)


def _is_far_behind(model: str, rates: Mapping[str, Estimate]) -> bool:
    return model in rates and rates[model].high < FAR_BELOW * max(found.middle for found in rates.values())


def _is_expensive(model: str, costs: Mapping[str, Estimate]) -> bool:
    """Return whether a request costs much more than the least; of a cost of 0 nothing is a multiple."""
    return model in costs and costs[model].middle >= _EXPENSIVE * min(found.middle for found in costs.values()) > 0


def _explain_worst(row: Row, rates: Mapping[str, Estimate], costs: Mapping[str, Estimate]) -> str:
    if row.failed:
        return f"{show_share(row.failed_ratio)} of its requests failed: {row.failed.most_common(1)[0][0]}"
    parts = []
    if _is_far_behind(row.model, rates):
        share = rates[row.model].middle / max(found.middle for found in rates.values())
        parts.append(f"{show_share(share)} of the best rate")
    if _is_expensive(row.model, costs):
        times = costs[row.model].middle / min(found.middle for found in costs.values())
        parts.append(f"{times:.1f} times the least CPU per request")
    return ", ".join(parts) + (f" ({row.summary})" if row.summary else "")
