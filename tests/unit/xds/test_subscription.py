"""The server's view of a client against a model of the client: Envoy's delta subscription in a few lines."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lateen.xds.subscription import WILDCARD, Offer, Subscription

NAMES = ["a", "b", "c", "d", "e"]
names = st.sampled_from(NAMES)


@dataclass
class Client:
    """What Envoy does: takes a response whole or, if one resource is bad, refuses it whole."""

    wildcard: bool = False
    asked: set[str] = field(default_factory=set[str])
    has: dict[str, str] = field(default_factory=dict[str, str])

    def receive(self, offer: Offer) -> str | None:
        if any(version.startswith("bad") for version in offer.sent.values()):
            return "Proto constraint validation failed"
        for name, version in offer.sent.items():
            if self.wildcard or name in self.asked:
                self.has[name] = version
        for name in offer.removed:
            self.has.pop(name, None)
        return None


class Talk(RuleBasedStateMachine):
    """Client and server exchange messages one at a time, in any order with changes of what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.catalogue: dict[str, str] = {}
        self.accepted: dict[str, str] = {}
        self.client = Client()
        self.view = Subscription()
        self.serial = 0

    @rule(name=names, kind=st.sampled_from(["good", "good", "bad"]))
    def change(self, name: str, kind: str) -> None:
        self.serial += 1
        self.catalogue[name] = f"{kind}-{self.serial}"
        self.view.dirty.add(name)

    @rule(name=names)
    def vanish(self, name: str) -> None:
        self.catalogue.pop(name, None)
        self.view.dirty.add(name)

    @rule(wanted=st.lists(names, unique=True, min_size=1))
    def subscribe(self, wanted: list[str]) -> None:
        self.client.asked.update(wanted)
        self.view.subscribe(wanted)

    @rule()
    def subscribe_to_all(self) -> None:
        self.client.wildcard = True
        self.view.subscribe([WILDCARD])
        self.view.dirty.update(self.catalogue)

    @rule(name=names)
    def unsubscribe(self, name: str) -> None:
        if name in self.client.asked:
            self.client.asked.discard(name)
            self.client.has.pop(name, None)
            self.view.unsubscribe([name])

    @rule(lost=st.sets(names))
    def reconnect(self, lost: set[str]) -> None:
        """A new stream: the client says what it has (and may have lost something)."""
        for name in lost:
            self.client.has.pop(name, None)
        self.view = Subscription()
        self.view.resume(self.client.has)
        self.view.subscribe([*sorted(self.client.asked), *([WILDCARD] if self.client.wildcard else [])])
        if self.client.wildcard:
            self.view.dirty.update(self.catalogue)

    @precondition(lambda self: self.view.in_flight is None)
    @rule()
    def send(self) -> None:
        sends, removes = self.view.plan(self.catalogue.get)
        if sends or removes:
            self.serial += 1
            sent = {name: self.catalogue[name] for name in sends}
            assert all(self.view.wants(name) for name in (*sends, *removes))
            self.view.offer(Offer(str(self.serial), self.serial, 0.0, sent, tuple(removes)))

    @precondition(lambda self: self.view.in_flight is not None)
    @rule()
    def answer(self) -> None:
        offer = self.view.in_flight
        assert offer is not None
        error = self.client.receive(offer)
        if error is None:
            assert self.view.accept(offer.nonce) is offer
        else:
            assert self.view.refuse(offer.nonce, error) is offer

    @precondition(lambda self: self.view.in_flight is not None)
    @rule()
    def an_old_answer_changes_nothing(self) -> None:
        before = self.view.in_flight
        assert self.view.accept("of another time") is None
        assert self.view.refuse("of another time", "no") is None
        assert self.view.in_flight is before

    @invariant()
    def the_client_ends_with_all_that_is_good(self) -> None:
        """Whatever happened: a few more exchanges and the client has every good resource that it wants in the
        version there is, nothing that is gone, and of the bad ones none."""
        if self.view.in_flight is not None:
            return
        for _ in range(40):
            self.send()
            if self.view.in_flight is None:
                break
            self.answer()
        else:
            raise AssertionError("the exchange does not end")
        assert self.view.settled or self.view.due
        for name in NAMES:
            version = self.catalogue.get(name)
            if not self.view.wants(name):
                continue
            if version is None:
                assert name not in self.client.has
            elif version.startswith("good"):
                assert self.client.has.get(name) == version
            else:
                assert self.view.refused.get(name) == version
                assert not self.client.has.get(name, "").startswith("bad")


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def synced(versions: dict[str, str]) -> Subscription:
    view = Subscription()
    view.subscribe(versions)
    view.offer(Offer("1", 1, 0.0, versions))
    view.accept("1")
    return view


def test_what_a_reconnecting_client_has_is_not_sent_and_what_is_gone_is_removed() -> None:
    view = Subscription()
    view.resume({"same": "1", "old": "1", "gone": "1"})
    view.subscribe([WILDCARD])
    view.dirty.update(["same", "old", "new"])
    there = {"same": "1", "old": "2", "new": "1"}
    assert view.plan(there.get) == (["new", "old"], ["gone"])
    assert not view.due


def test_a_name_asked_for_again_is_sent_again() -> None:
    view = synced({"a": "1"})
    view.subscribe(["a"])
    assert view.plan({"a": "1"}.get) == (["a"], [])


def test_an_absent_name_is_answered_once() -> None:
    view = Subscription()
    view.subscribe(["ghost"])
    assert view.plan(lambda _: None) == ([], ["ghost"])
    view.offer(Offer("1", 1, 0.0, {}, ("ghost",)))
    view.accept("1")
    view.dirty.add("ghost")
    assert view.plan(lambda _: None) == ([], [])


def test_the_name_in_envoys_words_is_tried_alone() -> None:
    view = Subscription()
    versions: dict[str, str] = dict.fromkeys(["a-cluster", "b-cluster", "c-cluster"], "1")
    view.subscribe(versions)
    view.offer(Offer("1", 1, 0.0, versions))
    view.refuse("1", "Error adding/updating cluster(s) b-cluster: no")
    assert view.plan(versions.get) == (["a-cluster", "c-cluster"], [])
    view.offer(Offer("2", 1, 0.0, {"a-cluster": "1", "c-cluster": "1"}))
    view.accept("2")
    assert view.plan(versions.get) == (["b-cluster"], [])
    view.offer(Offer("3", 1, 0.0, {"b-cluster": "1"}))
    view.refuse("3", "no")
    assert view.refused == {"b-cluster": "1"}
    assert view.plan(versions.get) == ([], [])
    view.dirty.add("b-cluster")
    assert view.plan({**versions, "b-cluster": "2"}.get) == (["b-cluster"], [])
