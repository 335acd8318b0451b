"""What a certificate says of its holder survives the certificate, whatever the names are."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lateen.lib.peer import FIELDS, decode, encode, envoy_expression
from lateen.lib.spiffe import SpiffeId, parse_spiffe
from lateen.security.peer import PeerIdentity, parse_peer, peer_of, subject_of

SPIFFE = SpiffeId("cluster.local", "default", "reviews")
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

values = st.dictionaries(st.sampled_from(FIELDS), st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))


def certificate(subject: x509.Name, *uris: str) -> x509.Certificate:
    """A certificate with a subject and URI names, signed by its own key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256())


@given(values)
def test_values_come_back(given_values: dict[str, str]) -> None:
    descriptions = encode(given_values)
    assert decode(descriptions) == given_values
    assert not any(character in text for text in descriptions for character in ',=\\"+<>;# ')


@given(values)
def test_identities_come_back_through_a_certificate(given_values: dict[str, str]) -> None:
    identity = PeerIdentity(spiffe=SPIFFE, **given_values)
    assert parse_peer(certificate(subject_of(identity), str(SPIFFE))) == identity


def test_the_longest_kubernetes_names_fit() -> None:
    identity = PeerIdentity(spiffe=SPIFFE, pod="p" * 253, workload="w.-" * 84, service="s" * 63, revision="r" * 63)
    pem = certificate(subject_of(identity), str(SPIFFE)).public_bytes(serialization.Encoding.PEM)
    assert parse_peer(pem) == parse_peer(pem.decode()) == identity


def test_what_does_not_fit_is_an_error_that_names_the_field() -> None:
    with pytest.raises(ValueError, match="the workload name takes 2009 of 1024 characters"):
        encode({"workload": "/" * 666 + "ab"})
    with pytest.raises(ValueError, match="surname"):
        encode({"surname": "x"})


@pytest.mark.parametrize(
    "value", [r"v1\,description=pod:evil", "v1,CN=evil", "description=workload:evil", " #x ", "a+b=c;<>\"'", "é,ü"]
)
def test_names_cannot_pose_as_others(value: str) -> None:
    assert decode(encode({"workload": value})) == {"workload": value}


@pytest.mark.parametrize(
    ("descriptions", "found"),
    [
        ((), {}),
        (("a description", "surname:x", "pod"), {}),
        (("pod:a", "pod:b", "uid:u"), {"uid": "u"}),
        (("pod:a", "pod:a"), {"pod": "a"}),
        (("pod:a,b", "uid:%zz", "type:%2c"), {}),
    ],
)
def test_what_lateen_did_not_write_is_unknown(descriptions: tuple[str, ...], found: dict[str, str]) -> None:
    assert decode(descriptions) == found


def test_a_certificate_of_another_ca_is_a_peer_without_labels() -> None:
    names = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "elsewhere")])
    assert parse_peer(certificate(names, str(SPIFFE))) == PeerIdentity(spiffe=SPIFFE)


@pytest.mark.parametrize("uris", [(), (str(SPIFFE), str(SPIFFE)), ("https://example.com",), ("spiffe://a/ns/b",)])
def test_what_is_no_workload_certificate(uris: tuple[str, ...]) -> None:
    made = certificate(x509.Name([]), *uris)
    with pytest.raises(ValueError, match=r"URI name|subject alternative names|is not spiffe"):
        parse_peer(made)

    assert peer_of(Context(made), now=lambda: NOW - dt.timedelta(1)) is None


class Context:
    """A gRPC call with a client certificate, or none."""

    def __init__(self, shown: x509.Certificate | None) -> None:
        self._shown = shown

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._shown.public_bytes(serialization.Encoding.PEM)]} if self._shown else {}


def test_who_calls() -> None:
    identity = PeerIdentity(spiffe=SPIFFE, pod="reviews-1")
    context = Context(certificate(subject_of(identity), str(SPIFFE)))
    before = NOW - dt.timedelta(seconds=1)
    assert peer_of(context, now=lambda: before) == identity
    assert peer_of(context, trust_domain=lambda: "cluster.local", now=lambda: before) == identity
    assert peer_of(context, trust_domain=lambda: "other.mesh", now=lambda: before) is None
    assert peer_of(context, now=lambda: NOW) is None
    assert peer_of(Context(None)) is None


def test_envoy_is_asked_for_fields_only() -> None:
    with pytest.raises(ValueError, match="surname"):
        envoy_expression("surname")


@pytest.mark.parametrize("text", ["spiffe://a/ns/b/sa/c", "spiffe://cluster.local/ns/istio-system/sa/ingress.gw"])
def test_spiffe_ids_come_back(text: str) -> None:
    assert str(parse_spiffe(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://a/ns/b/sa/",
        "spiffe://a/ns/b/sa/c/d",
        "spiffe://A/ns/b/sa/c",
        "spiffe://a/ns/b/sa/c\n",
        "spiffe://a/ns/../sa/c",
        "spiffe://a/ns/b/sa/c%2fd",
        "http://a/ns/b/sa/c",
    ],
)
def test_other_uris_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not spiffe|cannot be part|may have only"):
        parse_spiffe(text)
