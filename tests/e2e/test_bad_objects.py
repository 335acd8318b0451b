"""Bad objects: what is refused at apply, what an Envoy refuses later, and what only earns a finding."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.mesh import Mesh, eventually


def test_one_bad_object_among_fifty_is_named_and_the_others_are_live(bookinfo: Mesh, tmp_path: Path) -> None:
    def documents(bad: str) -> str:
        return "---\n".join(
            f"""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: fifty-{number}}}
spec:
  hosts: ["h{number}.example.com"]
  gateways: [bookinfo-gateway]
  http:
  - headers: {{response: {{set: {{x-number: "{bad if number == 17 else number}"}}}}}}
    route: [{{destination: {{host: details, port: {{number: 9080}}}}}}]
"""
            for number in range(50)
        )

    def live() -> set[str]:
        hosts = {str(number): {"host": f"h{number}.example.com"} for number in range(50)}
        return {
            number
            for number, header in hosts.items()
            if bookinfo.ask("/details/0", header).headers.get("x-number") == number
        }

    file = tmp_path / "fifty.yaml"
    file.write_text(documents("%PROTOCOL(x)%"))
    bookinfo.lateen("apply", "-f", str(file), expect=None)
    eventually(live, lambda found: found == {str(number) for number in range(50)} - {"17"})
    shown = eventually(
        lambda: bookinfo.lateen("get", "vs", "fifty-17").stdout, lambda text: "LTN0020" in text and str(file) in text
    )
    assert "PROTOCOL" in shown
    file.write_text(documents("17"))
    bookinfo.lateen("apply", "-f", str(file))
    eventually(live, lambda found: len(found) == 50)
    assert "LTN0020" not in bookinfo.lateen("get", "vs", "fifty-17").stdout


def test_a_typo_is_refused_by_name_and_nothing_of_the_file_is_applied(bookinfo: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: typo-good}
spec:
  hosts: [details]
  http:
  - route: [{destination: {host: details}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: typo-bad}
spec:
  hosts: [ratings]
  http:
  - rout: [{destination: {host: ratings}}]
""")
    done = bookinfo.lateen("apply", "-f", str(file), expect=1)
    assert f"{file}:15:5" in done.stderr
    assert "rout" in done.stderr
    assert 'did you mean "route"' in done.stderr
    assert "typo-good" not in bookinfo.lateen("get", "vs").stdout


def test_what_does_not_exist_is_a_finding_of_apply_and_get(bookinfo: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "dangling.yaml"
    file.write_text("""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dangling}
spec:
  hosts: [ratings]
  gateways: [mesh, no-such-gateway]
  http:
  - route: [{destination: {host: no-such-host}, weight: 1}, {destination: {host: ratings, subset: none}, weight: 1}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: nobodys}
spec:
  selector: {app: nobody}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: [nobody.example.com]}]
""")
    done = bookinfo.lateen("apply", "-f", str(file))
    shown = eventually(
        lambda: bookinfo.lateen("get", "vs,gateways").stdout, lambda text: "no-such-host" in text and "nobody" in text
    )
    for text in (done.stderr, shown):
        assert "no-such-gateway" in text
        assert "no-such-host" in text
        assert "none" in text
        assert "nobodys" in text
