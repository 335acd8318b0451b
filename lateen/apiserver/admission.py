"""Admission webhooks: outside servers that may change or refuse what is written, before it is.

Mutating webhooks are asked one after the other, by the name of their configuration and their place in it; validating
ones all at once, with what will be stored. A webhook that does not answer refuses the write, or is passed over, as its
`failurePolicy` says. Webhooks are reached by URL over TLS with the certificates of their `caBundle`.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import structlog

from lateen.api.codec import DecodeError, decode_as
from lateen.api.core.selectors import LabelSelector
from lateen.api.core.webhook_configuration import GROUP, RuleWithOperations, Webhook
from lateen.api.struct import Json, map_at
from lateen.apiserver.errors import ApiError, BadRequestError, ForbiddenError, InvalidError
from lateen.apiserver.expressions import ExpressionError, evaluate
from lateen.apiserver.patches import json_patch
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Target
from lateen.apiserver.users import User
from lateen.apiserver.webhook_calls import FAILURES, Caller, Dial
from lateen.lib.ids import Ref

Operation = Literal["CREATE", "UPDATE", "DELETE"]
_MUTATING: Final = (GROUP, "MutatingWebhookConfiguration")
_VALIDATING: Final = (GROUP, "ValidatingWebhookConfiguration")
_NEVER: Final = frozenset({"mutatingwebhookconfigurations", "validatingwebhookconfigurations"})
"""Kinds that webhooks are never asked about, or a broken one could not be removed."""
_MOST_S: Final = 30
_ANSWER_BYTES: Final = 8 * 1024 * 1024

_log = structlog.stdlib.get_logger("lateen.apiserver.admission")


class Admitting(msgspec.Struct, frozen=True):
    """A write that asks for admission. `document` is None for a deletion, `before` for a creation."""

    operation: Operation
    target: Target
    user: User
    dry_run: bool
    document: Json | None
    before: Json | None
    manager: str = ""


class _Hook(msgspec.Struct, frozen=True):
    configuration: str
    webhook: Webhook


class _AdmissionAnswer(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    allowed: bool
    status: Mapping[str, Any] = {}
    patch: str | None = None
    patch_type: str | None = None
    warnings: tuple[str, ...] = ()


class _Review(msgspec.Struct, frozen=True):
    response: _AdmissionAnswer


class Admission:
    """Asks the webhooks of a store's configurations."""

    def __init__(self, store: Store, dial: Dial | None = None) -> None:
        self._store = store
        self._decoded: dict[Ref, tuple[int, tuple[Webhook, ...]]] = {}
        self._caller = Caller(store, dial)

    async def close(self) -> None:
        """Ends the connections."""
        await self._caller.close()

    async def mutate(self, asking: Admitting) -> tuple[Json, list[str]]:
        """The document as webhooks want it, and their warnings. ForbiddenError when one refuses."""
        document = asking.document
        assert document is not None
        warnings: list[str] = []
        for hook in self._matching(_MUTATING, asking):
            answer = await self._ask(hook, msgspec.structs.replace(asking, document=document))
            if answer is None:
                continue
            warnings += answer.warnings
            if answer.patch:
                document = _patched(hook, document, answer)
        return document, warnings

    async def validate(self, asking: Admitting) -> list[str]:
        """The warnings of webhooks that only look. ForbiddenError when one refuses."""
        hooks = list(self._matching(_VALIDATING, asking))
        if asking.operation == "DELETE":  # nothing can be changed about these, but they may be refused
            hooks += self._matching(_MUTATING, asking)
        if not hooks:
            return []
        answers = await asyncio.gather(*(self._ask(each, asking) for each in hooks))
        return [warning for answer in answers if answer is not None for warning in answer.warnings]

    # -- which -----------------------------------------------------------------------------------------

    def _matching(self, collection: tuple[str, str], asking: Admitting) -> Iterator[_Hook]:
        rows = self._store.members(collection)
        if not rows or (asking.target.resource.group == GROUP and asking.target.resource.plural in _NEVER):
            return
        for row in sorted(rows, key=lambda each: each.ref.name):
            for webhook in self._webhooks(row):
                if self._is_asked(webhook, asking):
                    yield _Hook(row.ref.name, webhook)

    def _webhooks(self, row: Row) -> tuple[Webhook, ...]:
        kept = self._decoded.get(row.ref)
        if kept is None or kept[0] != row.revision:
            try:
                webhooks = decode_as(row.decode().get("webhooks") or [], tuple[Webhook, ...])
            except DecodeError as error:
                _log.error("webhook configuration not understood", name=row.ref.name, error=str(error))
                webhooks = ()
            kept = (row.revision, webhooks)
            self._decoded[row.ref] = kept
        return kept[1]

    def _is_asked(self, webhook: Webhook, asking: Admitting) -> bool:
        target = asking.target
        if not any(_meant(rule, asking.operation, target) for rule in webhook.rules):
            return False
        labels = self._namespace_labels(target)
        if labels is not None and not _selects(webhook.namespace_selector, labels):
            return False
        objects = [each for each in (asking.document, asking.before) if each is not None]
        if not any(_selects(webhook.object_selector, map_at(each, "metadata").get("labels") or {}) for each in objects):
            return False
        variables = {"object": asking.document, "oldObject": asking.before, "request": _request(asking, "")}
        try:
            return all(evaluate(each.expression, variables) is True for each in webhook.match_conditions)
        except ExpressionError as error:
            if webhook.failure_policy == "Ignore":
                return False
            raise ForbiddenError(f"webhook {webhook.name}: a match condition fails: {error}") from None

    def _namespace_labels(self, target: Target) -> Mapping[str, str] | None:
        """The labels that the namespace selector is about; None when there are none."""
        name = target.namespace
        if target.resource.collection == ("", "Namespace"):
            name = target.name
        if not name:
            return None
        row = self._store.get(Ref("", "Namespace", "", name))
        return {"kubernetes.io/metadata.name": name, **(row.labels if row is not None else {})}

    # -- asking ----------------------------------------------------------------------------------------

    async def _ask(self, hook: _Hook, asking: Admitting) -> _AdmissionAnswer | None:
        """The answer of one webhook, None when it gave none and may be passed over."""
        webhook = hook.webhook
        try:
            answer = await self._call(webhook, asking)
        except FAILURES as error:
            said = f'failed calling webhook "{webhook.name}": {error or type(error).__name__}'
            if webhook.failure_policy == "Ignore":
                _log.warning("webhook passed over", configuration=hook.configuration, error=said)
                return None
            raise _Failed(said, remedy="start the webhook, or delete its configuration") from None
        if not answer.allowed:
            raise _refusal(webhook, answer.status)
        return answer

    async def _call(self, webhook: Webhook, asking: Admitting) -> _AdmissionAnswer:
        uid = str(uuid.uuid4())
        review = {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": _request(asking, uid),
        }
        async with asyncio.timeout(webhook.timeout_seconds or 10):
            config, asked = webhook.client_config, msgspec.json.encode(review)
            status, content = await self._caller.post(config, asked, _ANSWER_BYTES)
        if status != 200:
            raise ValueError(f"it answers {status}")
        answer = msgspec.json.decode(content, type=_Review).response
        if answer.uid != uid:
            raise ValueError("the answer is to another request")
        return answer


class _Failed(ApiError):
    """500: a webhook that had to be asked could not be."""


def _request(asking: Admitting, uid: str) -> Json:
    target = asking.target
    group, version = target.resource.group, target.form.name
    kind = {"group": group, "version": version, "kind": target.resource.kind}
    resource = {"group": group, "version": version, "resource": target.resource.plural}
    subject = asking.document or asking.before or {}
    said: Json = {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": target.name or map_at(subject, "metadata").get("name", ""),
        "operation": asking.operation,
        "userInfo": {"username": asking.user.name, "uid": asking.user.uid, "groups": list(asking.user.groups)},
        "object": asking.document,
        "oldObject": asking.before,
        "dryRun": asking.dry_run,
        "options": {"kind": f"{asking.operation.capitalize()}Options", "apiVersion": "meta.k8s.io/v1"},
    }
    if asking.operation != "DELETE":
        said["options"]["fieldManager"] = asking.manager
    if target.namespace:
        said["namespace"] = target.namespace
    if target.part:
        said |= {"subResource": target.part, "requestSubResource": target.part}
    return said


def _meant(rule: RuleWithOperations, operation: Operation, target: Target) -> bool:
    resource = target.resource
    scope = "Namespaced" if resource.namespaced else "Cluster"
    names = {resource.plural, "*"} if not target.part else {f"{resource.plural}/{target.part}", f"*/{target.part}"}
    names |= {"*/*", f"{resource.plural}/*"}
    return (
        bool({operation, "*"} & set(rule.operations))
        and bool({resource.group, "*"} & set(rule.api_groups))
        and bool({*resource.versions, "*"} & set(rule.api_versions))
        and bool(names & set(rule.resources))
        and rule.scope in (None, "*", scope)
    )


def _selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    if selector is None:
        return True
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for each in selector.match_expressions:
        value = labels.get(each.key)
        fits = {
            "In": value in each.values,
            "NotIn": value not in each.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits[each.operator]:
            return False
    return True


def _patched(hook: _Hook, document: Json, answer: _AdmissionAnswer) -> Json:
    if answer.patch_type != "JSONPatch":
        raise _Failed(f'webhook "{hook.webhook.name}" sends a patch of type {answer.patch_type}, not JSONPatch')
    try:
        operations: Sequence[Any] = msgspec.json.decode(base64.b64decode(answer.patch or ""), type=list[Any])
        return json_patch(document, operations)
    except (binascii.Error, msgspec.DecodeError, InvalidError, BadRequestError) as error:
        raise _Failed(f'the patch of webhook "{hook.webhook.name}" cannot be done: {error}') from None


def _refusal(webhook: Webhook, status: Mapping[str, Any]) -> ApiError:
    said = status.get("message") or status.get("reason") or "without explanation"
    message = f'admission webhook "{webhook.name}" denied the request: {said}'
    kinds: dict[int, Callable[[str], ApiError]] = {400: BadRequestError, 422: InvalidError}
    return kinds.get(status.get("code", 403), ForbiddenError)(message)
