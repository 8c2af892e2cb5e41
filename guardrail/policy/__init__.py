"""Safety specifications: read, checked and compiled. Needs the `server` extra, but no numerics."""

from guardrail.errors import MissingExtra

try:
    from guardrail.policy.loader import load_policy, parse_policy
    from guardrail.policy.policy import FeatureValues, Inputs, MatchedRule, Policy
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("cel_expr_python", "ruamel"):
        raise MissingExtra("reading policies", "server") from error
    raise

__all__ = ["FeatureValues", "Inputs", "MatchedRule", "Policy", "load_policy", "parse_policy"]
