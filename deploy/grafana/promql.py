"""PromQL of a few shapes, over what is chosen at the top of a dashboard."""

from __future__ import annotations

from deploy.grafana.model import Variable

WINDOW = "[$__rate_interval]"
PROCESS = 'job=~"$job",instance=~"$instance"'
MODEL = PROCESS + ',model=~"$model"'

OK = 'code="OK"'
# Of unary calls that ask a model something.
ANSWERED = f'{OK},operation!~"stream_.+|self_test|load_model|unload_model|list_models|get_model"'

JOB = Variable("job", "label_values(pxserve_build_info, job)")
INSTANCE = Variable("instance", 'label_values(pxserve_build_info{job=~"$job"}, instance)')
MODELS = Variable("model", 'label_values(pxserve_model_info{job=~"$job"}, model)')


def chosen(metric: str, more: str = "", among: str = MODEL) -> str:
    """The series of what is chosen, and of ``more`` matchers."""
    return f"{metric}{{{among}{',' if more else ''}{more}}}"


def summed(expr: str, by: str = "") -> str:
    """The sum of all series, or one for each value of the labels in ``by``."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def rate(metric: str, by: str = "", more: str = "", among: str = MODEL) -> str:
    """Per second, summed."""
    return summed(f"rate({chosen(metric, more, among)}{WINDOW})", by)


def mean(metric: str, by: str = "", more: str = "", among: str = MODEL) -> str:
    """Of a histogram or summary."""
    return f"{rate(f'{metric}_sum', by, more, among)} / {rate(f'{metric}_count', by, more, among)}"


def quantile(share: float, metric: str, by: str = "", more: str = "", among: str = MODEL) -> str:
    """Of a histogram."""
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', groups, more, among)})"


def total(metric: str, by: str = "", more: str = "", among: str = MODEL) -> str:
    """Of a gauge, summed."""
    return summed(chosen(metric, more, among), by)


def buckets(metric: str, more: str = "", among: str = MODEL) -> str:
    """Of a histogram, for a heatmap."""
    return summed(f"increase({chosen(metric + '_bucket', more, among)}{WINDOW})", "le")


def share(part: str, whole: str) -> str:
    """Part of a whole; nothing where the whole is 0."""
    return f"({part}) / (({whole}) > 0)"
