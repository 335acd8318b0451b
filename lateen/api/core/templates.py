"""What every kind that makes Pods from a template demands of it."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api.core.pod import PodTemplateSpec
from lateen.api.core.selectors import LabelSelector
from lateen.api.problems import Problem, at


def template_problems(kind: str, selector: LabelSelector, template: PodTemplateSpec) -> Iterator[Problem]:
    """What is wrong between a selector and the template whose Pods it is to find."""
    labels = template.metadata.labels
    if selector.is_empty:
        yield Problem("selector", "the selector is empty", "set matchLabels to labels of the template")
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            place = at("selector", "matchLabels", key)
            yield Problem(place, f"the template has no label {key}: {value}", "write the same labels in both places")
    if template.spec.restart_policy not in (None, "Always"):
        place = at("template", "spec", "restartPolicy")
        yield Problem(place, f"a {kind} always restarts its containers", "leave it out, or use a Job")
