"""Admission webhooks (admissionregistration.k8s.io/v1): outside servers that are asked before a write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from lateen.api.core.selectors import LabelSelector
from lateen.api.problems import Problem
from lateen.api.struct import Base64, Meta, NonEmpty, Object, Struct, list_map

GROUP = "admissionregistration.k8s.io"


class ServiceReference(Struct, frozen=True):
    """A Service that answers."""

    name: NonEmpty
    namespace: NonEmpty
    path: str | None = None
    port: int | None = None


class WebhookClientConfig(Struct, frozen=True):
    """Where the webhook is, and whose certificate it has."""

    ca_bundle: Base64 | None = None
    service: ServiceReference | None = None
    url: str | None = None

    def problems(self) -> Iterator[Problem]:
        if (self.url is None) == (self.service is None):
            yield Problem("", "it is not clear where the webhook is", "set url or service, one of them")
        if self.url is not None and not self.url.startswith("https://"):
            yield Problem("url", "webhooks speak TLS", "begin it with https://")


class RuleWithOperations(Struct, frozen=True):
    """Which writes the webhook is asked about; `*` is all."""

    api_groups: tuple[str, ...] = ()
    api_versions: tuple[str, ...] = ()
    operations: tuple[Literal["CREATE", "UPDATE", "DELETE", "CONNECT", "*"], ...] = ()
    resources: tuple[str, ...] = ()
    scope: Literal["Cluster", "Namespaced", "*"] | None = None


class MatchCondition(Struct, frozen=True):
    """A CEL expression that must hold for the webhook to be asked."""

    expression: NonEmpty
    name: NonEmpty


class Webhook(Struct, frozen=True):
    """One webhook."""

    admission_review_versions: Annotated[tuple[str, ...], Meta(min_length=1)]
    client_config: WebhookClientConfig
    name: NonEmpty
    side_effects: Literal["None", "NoneOnDryRun"]
    failure_policy: Literal["Ignore", "Fail"] | None = None
    match_conditions: Annotated[tuple[MatchCondition, ...], list_map("name")] = ()
    match_policy: Literal["Exact", "Equivalent"] | None = None
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    reinvocation_policy: Literal["Never", "IfNeeded"] | None = None
    rules: tuple[RuleWithOperations, ...] = ()
    timeout_seconds: Annotated[int, Meta(ge=1, le=30)] | None = None

    def problems(self) -> Iterator[Problem]:
        if "v1" not in self.admission_review_versions:
            yield Problem("admissionReviewVersions", "v1 is not among them", 'add "v1"')


class MutatingWebhookConfiguration(Object, frozen=True):
    """Webhooks that may change what is written."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "MutatingWebhookConfiguration"

    webhooks: Annotated[tuple[Webhook, ...], list_map("name")] = ()


class ValidatingWebhookConfiguration(Object, frozen=True):
    """Webhooks that may refuse what is written."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "ValidatingWebhookConfiguration"

    webhooks: Annotated[tuple[Webhook, ...], list_map("name")] = ()
