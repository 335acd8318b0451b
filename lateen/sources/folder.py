"""What a folder of YAML means, without touching a disk: texts of files in, transactions out.

A folder changes in ways that nobody meant: a file is read half written, a volume is gone for a moment, a checkout
removes everything before it brings it back. So:

- A text that does not parse changes nothing: the objects that its file last gave stay.
- An object that breaks the rules of its kind stays as it last was; the others of its file go on.
- What vanishes is deleted only after nothing more has vanished for half a second, and not at all when it is all
  there was, or five objects and more than half: that is held, reported, and ended by the objects' return or by
  somebody's word.

Every change and addition counts at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from lateen.api import kinds
from lateen.api.codec import DecodeError, decode
from lateen.api.objects import transaction
from lateen.api.struct import Json, Object
from lateen.engine import Transaction
from lateen.lib.findings import Finding, Level, Position
from lateen.lib.ids import Ref
from lateen.lib.yaml import Document, parse

SETTLE_S: Final = 0.5
MASS: Final = 5
"""So many objects, if they are more than half of all, are not deleted at once."""

TWICE: Final = "LTN0010"
HELD: Final = "LTN0013"
REFUSED: Final = "LTN0020"
UNREADABLE: Final = "LTN0012"
KEPT: Final = "LTN0242"

Check = Callable[[Document], list[Finding]]
"""All that is wrong with one document by itself."""


class _File(msgspec.Struct):
    """What one file last said."""

    objects: dict[Ref, tuple[Object, Document]]
    findings: list[Finding]


class Folder:
    """The objects of a folder. `check` finds what is wrong with one document by itself."""

    def __init__(self, check: Check, *, allow_mass_delete: bool = False) -> None:
        self._check = check
        self._allow = allow_mass_delete
        self._files: dict[str, _File] = {}
        self._places: dict[Ref, set[str]] = {}
        self._touched: set[Ref] = set()
        self._wanted: dict[Ref, Object] = {}
        self._absent: set[Ref] = set()  # known, and written nowhere
        self._twice: dict[Ref, list[Finding]] = {}
        self._troubled: set[str] = set()  # files with findings
        self._known: dict[Ref, Object] = {}
        self._before: dict[Ref, Object] = {}
        self._refused: dict[Ref, tuple[Object, str]] = {}
        self._vanished: set[Ref] = set()
        self._vanished_at = 0.0
        self._held: set[Ref] = set()
        self._confirmed = False
        self._findings: tuple[Finding, ...] = ()

    def read(self, name: str, text: str) -> None:
        """A file as it is now; `update` says what that changes."""
        documents, broken = parse(text, name)
        before = self._files.get(name) or _File({}, [])
        if broken:
            kept = _kept(f"what {name} said before", broken[0].position, bool(before.objects))
            self._put(name, _File(before.objects, [*broken, kept]))
            return
        file = _File({}, [])
        for document in documents:
            self._take(document, before, file)
        self._put(name, file)

    def remove(self, name: str) -> None:
        """A file that is gone."""
        self._put(name, None)

    def _put(self, name: str, file: _File | None) -> None:
        before = self._files.pop(name, None)
        for ref in before.objects if before is not None else ():
            self._places[ref].discard(name)
            self._touched.add(ref)
        self._troubled.discard(name)
        if file is None:
            return
        self._files[name] = file
        if file.findings:
            self._troubled.add(name)
        for ref in file.objects:
            self._places.setdefault(ref, set()).add(name)
            self._touched.add(ref)

    def confirm(self) -> None:
        """Somebody means the deletion that is held; the next `update` carries it out."""
        self._held = set()
        self._confirmed = True

    def hold(self, ref: Ref, reason: str) -> None:
        """Proxies refused what this object became: until it changes, what it was before counts (nothing, if new).

        The next `update` carries it out.
        """
        current = self._known.get(ref)
        if current is not None:
            self._refused[ref] = (current, reason)
            self._touched.add(ref)

    def update(self, now: float) -> Transaction | None:
        """What changes in the mesh, at that time in seconds; None when nothing does."""
        put = self._look_again()
        refused = {ref for ref in self._refused if ref in self._known and ref not in self._wanted}
        self._held -= self._wanted.keys()
        vanished = self._absent - self._held - refused
        if vanished - self._vanished:
            self._vanished_at = now
        self._vanished = vanished
        delete: set[Ref] = set()
        if vanished and (self._confirmed or now >= self._vanished_at + SETTLE_S):
            if self._is_mass(len(vanished), bool(self._wanted)):
                self._held |= vanished
            else:
                delete = vanished
            self._vanished = set()
            self._confirmed = False
        delete |= refused
        for each in put:
            old = self._known.get(each.ref)
            if old is not None and each.ref not in self._refused:
                self._before[each.ref] = old
            self._known[each.ref] = each
        for ref in delete:
            del self._known[ref]
            self._before.pop(ref, None)
            self._absent.discard(ref)
        self._findings = tuple(self._say())
        return transaction(put, sorted(delete)) if put or delete else None

    @property
    def due_at(self) -> float | None:
        """When `update` must be called although no file changes; None: never."""
        return self._vanished_at + SETTLE_S if self._vanished else None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to say about the folder after the last `update`."""
        return self._findings

    @property
    def held(self) -> bool:
        """True while a mass deletion is held."""
        return bool(self._held)

    def document(self, ref: Ref) -> Document | None:
        """Where an object was written."""
        places = self._places.get(ref)
        return self._files[min(places)].objects[ref][1] if places else None

    def __len__(self) -> int:
        return len(self._known)

    def _take(self, document: Document, before: _File, file: _File) -> None:
        found = self._check(document)
        each: Object | None = None
        if not any(one.level is Level.ERROR for one in found):
            try:
                each = decode(in_namespace(document.raw))
            except DecodeError as error:
                place = document.position()
                found = [*found, Finding(code=UNREADABLE, level=Level.ERROR, message=str(error), position=place)]
        file.findings += found
        if each is not None:
            there = file.objects.get(each.ref)
            if there is None or there is before.objects.get(each.ref):
                file.objects[each.ref] = (each, document)
            else:
                file.findings.append(_twice(each.ref, there[1], document))
            return
        ref = _ref(document.raw)
        if ref is not None and kinds.by_group(ref.group, ref.kind) is not None:
            file.findings.append(_kept(ref.short, document.position(), ref in before.objects, ref))
        # A document that does not even say which object it is may be any of those that were here.
        for kept in [ref] if ref in before.objects else list(before.objects):
            file.objects.setdefault(kept, before.objects[kept])

    def _look_again(self) -> list[Object]:
        """Works out what counts of the objects that were written or are gone since the last time; those that are not
        what is known."""
        touched, self._touched = self._touched, set()
        put: list[Object] = []
        for ref in sorted(touched):
            places = sorted(self._places[ref]) if ref in self._places else []
            if not places:
                self._places.pop(ref, None)
            documents = [self._files[name].objects[ref] for name in places]
            self._twice.pop(ref, None)
            if len(documents) > 1:
                self._twice[ref] = [_twice(ref, documents[0][1], other) for _, other in documents[1:]]
            good = self._good(ref, documents[0][0]) if documents else None
            if good is not None:
                self._wanted[ref] = good
                self._absent.discard(ref)
                if self._known.get(ref) != good:
                    put.append(good)
                continue
            self._wanted.pop(ref, None)
            if ref in self._known:
                self._absent.add(ref)
        return put

    def _good(self, ref: Ref, written: Object) -> Object | None:
        """What counts of an object as it is written."""
        if ref not in self._refused:
            return written
        if self._refused[ref][0] == written:
            return self._before.get(ref)
        del self._refused[ref]
        return written

    def _is_mass(self, count: int, left: bool) -> bool:
        if self._allow or self._confirmed:
            return False
        return not left or (count >= MASS and count * 2 > len(self._known) - len(self._held))

    def _say(self) -> list[Finding]:
        said = [each for name in sorted(self._troubled) for each in self._files[name].findings]
        said += [each for ref in sorted(self._twice) for each in self._twice[ref]]
        for ref, (_, reason) in self._refused.items():
            document = self.document(ref)
            said.append(
                Finding(
                    code=REFUSED,
                    level=Level.ERROR,
                    message=f"Envoy refuses what this becomes, so its last good version stays in force: {reason}",
                    ref=ref,
                    position=document.position() if document is not None else None,
                    remedy="correct the object",
                )
            )
        if self._held:
            shown = ", ".join(each.short for each in sorted(self._held)[:5])
            more = f" and {len(self._held) - 5} more" if len(self._held) > 5 else ""
            said.append(
                Finding(
                    code=HELD,
                    level=Level.WARNING,
                    message=f"{len(self._held)} objects vanished from the folder at once and are kept: {shown}{more}",
                    remedy="bring the files back; or, if you mean it, touch the file .allow-mass-delete in the folder",
                )
            )
        return said


def _kept(what: str, position: Position | None, there: bool, ref: Ref | None = None) -> Finding:
    message = f"{what} stays in force" if there else f"{what} is not there"
    return Finding(
        code=KEPT, level=Level.WARNING, message=f"{message} until this is corrected", ref=ref, position=position
    )


def _twice(ref: Ref, first: Document, second: Document) -> Finding:
    return Finding(
        code=TWICE,
        level=Level.WARNING,
        message=f"{ref.short} is there twice; the one at {first.position()} counts",
        ref=ref,
        position=second.position(),
        remedy="remove one of them",
    )


def in_namespace(raw: Json) -> Json:
    """The document in the namespace it lives in: `default` unless it says so, none for cluster-scoped kinds."""
    kind = kinds.by_api(str(raw.get("apiVersion")), str(raw.get("kind")))
    metadata: Json = raw.get("metadata") or {}
    namespace = (metadata.get("namespace") or "default") if kind is None or kind.namespaced else ""
    return {**raw, "metadata": {**metadata, "namespace": namespace}}


def _ref(raw: object) -> Ref | None:
    if not isinstance(raw, dict):
        return None
    document: Json = raw  # pyright: ignore[reportUnknownVariableType]
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return None
    named: Json = in_namespace(document)["metadata"]
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    return Ref(group, str(document.get("kind", "")), str(named["namespace"]), str(named.get("name", "")))
