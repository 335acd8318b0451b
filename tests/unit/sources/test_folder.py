from __future__ import annotations

from lateen.api.check import check
from lateen.engine import Transaction
from lateen.lib.findings import Level, Position
from lateen.lib.ids import Ref
from lateen.sources.folder import SETTLE_S, Folder


def config_map(name: str, value: str = "1") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  x: '{value}'\n"


def ref(name: str) -> Ref:
    return Ref("", "ConfigMap", "default", name)


def names(tx: Transaction | None) -> tuple[list[str], list[str]]:
    """What a transaction puts and deletes."""
    if tx is None:
        return ([], [])
    puts, deletes = [key for key, _ in tx.put], list(tx.delete)
    return ([key.name for key in puts if isinstance(key, Ref)], [key.name for key in deletes if isinstance(key, Ref)])


def folder_of(count: int, *, allow_mass_delete: bool = False) -> Folder:
    """A folder with that many files of one object each, and what it says taken."""
    folder = Folder(check, allow_mass_delete=allow_mass_delete)
    for number in range(count):
        folder.read(f"{number}.yaml", config_map(f"a{number}"))
    assert len(names(folder.update(0.0))[0]) == count
    return folder


def test_changes_and_additions_count_at_once_and_only_they_do() -> None:
    folder = folder_of(3)
    folder.read("1.yaml", config_map("a1", "2"))
    folder.read("new.yaml", config_map("b") + "---\n" + config_map("c"))
    assert names(folder.update(0.0)) == (["a1", "b", "c"], [])
    assert folder.update(0.0) is None


def test_a_broken_file_changes_nothing() -> None:
    folder = folder_of(3)
    folder.read("1.yaml", "apiVersion: v1\nkind: [")
    assert folder.update(0.0) is None
    assert folder.update(100.0) is None
    finding, kept = folder.findings
    assert finding.level is Level.ERROR
    assert finding.position is not None
    assert finding.position.file == "1.yaml"
    assert (kept.code, kept.message) == ("LTN0242", "what 1.yaml said before stays in force until this is corrected")
    folder.read("1.yaml", config_map("a1", "2"))
    assert names(folder.update(100.0)) == (["a1"], [])
    assert folder.findings == ()


def test_a_bad_object_stays_as_it_was_and_its_neighbours_go_on() -> None:
    folder = folder_of(3)
    folder.read("1.yaml", config_map("a1", "2").replace("\ndata:", "\ndta:") + "---\n" + config_map("b"))
    assert names(folder.update(0.0)) == (["b"], [])
    assert folder.update(100.0) is None
    finding, kept = folder.findings
    assert finding.position == Position("1.yaml", 5, 1)
    assert (kept.code, kept.message) == ("LTN0242", "ConfigMap default/a1 stays in force until this is corrected")
    folder.read("new.yaml", config_map("c").replace("\ndata:", "\ndta:"))
    folder.update(100.0)
    assert [each.message for each in folder.findings if each.ref == ref("c")][1:] == [
        "ConfigMap default/c is not there until this is corrected"
    ]


def test_a_document_that_does_not_say_which_object_it_is_deletes_none() -> None:
    folder = folder_of(3)
    folder.read("1.yaml", config_map("b") + "---\n" + config_map("a1").replace("metadata:", "metadta:"))
    assert names(folder.update(0.0)) == (["b"], [])
    assert folder.update(100.0) is None


def test_a_file_that_is_gone_is_deleted_after_a_moment() -> None:
    folder = folder_of(3)
    folder.remove("1.yaml")
    assert folder.update(1.0) is None
    assert folder.due_at == 1.0 + SETTLE_S
    assert folder.update(1.0 + SETTLE_S / 2) is None
    assert names(folder.update(1.0 + SETTLE_S)) == ([], ["a1"])
    assert folder.due_at is None


def test_an_object_that_moves_to_another_file_is_not_deleted() -> None:
    folder = folder_of(3)
    folder.remove("1.yaml")
    assert folder.update(1.0) is None
    folder.read("moved.yaml", config_map("a1"))
    assert folder.update(1.1) is None
    assert folder.update(100.0) is None


def test_an_empty_folder_deletes_nothing_even_when_it_is_emptied_one_by_one() -> None:
    folder = folder_of(8)
    for number in range(8):
        folder.remove(f"{number}.yaml")
        assert folder.update(number * SETTLE_S / 2) is None
    for moment in (10.0, 1000.0, 100000.0):
        assert folder.update(moment) is None
    assert folder.held
    assert "8 objects vanished" in folder.findings[0].message
    folder.read("1.yaml", config_map("a1", "2"))
    assert names(folder.update(100001.0)) == (["a1"], [])
    assert folder.update(200000.0) is None
    assert "7 objects" in folder.findings[0].message
    for number in range(8):
        folder.read(f"{number}.yaml", config_map(f"a{number}"))
    assert names(folder.update(200001.0)) == (["a1"], [])
    assert folder.findings == ()


def test_one_object_that_was_all_there_was_is_kept_too() -> None:
    folder = folder_of(1)
    folder.read("0.yaml", "")
    assert folder.update(0.0) is None
    assert folder.update(10.0) is None
    assert folder.held


def test_most_of_a_folder_is_held_and_a_small_part_of_it_not() -> None:
    folder = folder_of(9)
    for number in range(4):
        folder.remove(f"{number}.yaml")
    folder.update(0.0)
    assert len(names(folder.update(1.0))[1]) == 4  # less than half
    folder = folder_of(9)
    for number in range(5):
        folder.remove(f"{number}.yaml")
    folder.update(0.0)
    assert folder.update(1.0) is None
    assert folder.held
    folder.remove("8.yaml")  # somebody's single step is still taken
    folder.update(2.0)
    assert names(folder.update(3.0)) == ([], ["a8"])
    assert folder.held


def test_a_held_deletion_happens_when_it_is_confirmed() -> None:
    folder = folder_of(6)
    for number in range(6):
        folder.remove(f"{number}.yaml")
    folder.update(0.0)
    assert folder.update(1.0) is None
    folder.confirm()
    assert len(names(folder.update(2.0))[1]) == 6
    assert not folder.held
    assert folder.findings == ()


def test_mass_deletion_can_be_allowed() -> None:
    folder = folder_of(6, allow_mass_delete=True)
    for number in range(6):
        folder.remove(f"{number}.yaml")
    folder.update(0.0)
    assert len(names(folder.update(1.0))[1]) == 6


def test_of_an_object_that_is_there_twice_the_first_file_counts() -> None:
    folder = folder_of(2)
    folder.read("z.yaml", config_map("a0", "other"))
    assert folder.update(0.0) is None
    (finding,) = folder.findings
    assert finding.position is not None
    assert finding.position.file == "z.yaml"
    folder.remove("0.yaml")
    assert names(folder.update(0.0)) == (["a0"], [])
    folder.read("z.yaml", config_map("a0", "other") + "---\n" + config_map("a0", "third"))
    assert folder.update(0.0) is None
    assert [str(each.position) for each in folder.findings] == ["z.yaml:8:1"]


def test_what_proxies_refuse_goes_back_until_it_changes() -> None:
    folder = folder_of(2)
    folder.read("0.yaml", config_map("a0", "bad"))
    folder.read("new.yaml", config_map("b", "bad"))
    folder.update(0.0)
    folder.hold(ref("a0"), "Envoy said no")
    folder.hold(ref("b"), "Envoy said no")
    tx = folder.update(0.0)
    assert names(tx) == (["a0"], ["b"])
    assert tx is not None
    assert [each.data["x"] for _, each in tx.put] == ["1"]
    assert {str(each.position) for each in folder.findings} == {"0.yaml:1:1", "new.yaml:1:1"}
    assert folder.update(100.0) is None
    folder.read("0.yaml", config_map("a0", "fixed"))
    folder.read("new.yaml", config_map("b", "fixed"))
    assert names(folder.update(101.0)) == (["a0", "b"], [])
    assert folder.findings == ()


def test_what_is_no_object_is_said_and_skipped() -> None:
    folder = folder_of(1)
    for number, text in enumerate(("- a list", "text", "kind: Nonsense\napiVersion: v1\nmetadata: {name: a}", "{}")):
        folder.read(f"x{number}.yaml", text)
    assert folder.update(0.0) is None
    assert len(folder.findings) == 4
