"""Who may do what: tenants stay apart, nobody gives away more than he has, tokens end with their account."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from lateen.api.check import check
from lateen.apiserver import rbac
from lateen.apiserver.credentials import account_user, by_credentials, of_certificate
from lateen.apiserver.http import application, identified
from lateen.apiserver.operations import Create
from lateen.apiserver.store import Store
from lateen.apiserver.users import OWNER, User
from lateen.security.account_tokens import AUDIENCE, Account, AccountTokens
from tests.unit.apiserver.api import nothing

Json = dict[str, Any]
ROLES = "/apis/rbac.authorization.k8s.io/v1"
ANNA, BORIS = account_user("a", "anna"), account_user("b", "boris")


def binding(space: str, account: str, role: str) -> Json:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": space}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": account, "namespace": space},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


@contextlib.asynccontextmanager
async def client_of(store: Store, who: User | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client that the API takes for somebody."""

    def identify(_: HTTPConnection) -> User | None:
        return who

    app = application(store, check=check, analyse=nothing, ready=lambda: True)
    transport = httpx.ASGITransport(identified(app, identify))
    async with httpx.AsyncClient(transport=transport, base_url="http://lateen") as client:
        yield client


@pytest.fixture
async def tenants(store: Store) -> Store:
    """Two namespaces, each with an account that may edit it."""
    await store.write([Create(each) for each in rbac.initial()])
    for space, account in (("a", "anna"), ("b", "boris")):
        await store.write([Create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})])
        await store.write([Create(binding(space, account, "admin"))])
    return store


def config_map(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


async def test_tenants_stay_apart(tenants: Store) -> None:
    async with client_of(tenants, ANNA) as anna, client_of(tenants, BORIS) as boris:
        assert (await anna.post("/api/v1/namespaces/a/configmaps", json=config_map("mine"))).status_code == 201
        for path in ("/api/v1/namespaces/a/configmaps", "/api/v1/configmaps", "/api/v1/namespaces/a/configmaps/mine"):
            refused = await boris.get(path)
            assert (path, refused.status_code, refused.json()["reason"]) == (path, 403, "Forbidden")
        message = (await boris.get("/api/v1/namespaces/a/configmaps")).json()["message"]
        assert 'User "system:serviceaccount:b:boris" cannot list resource "configmaps" in API group ""' in message
        watch = await boris.get("/api/v1/configmaps", params={"watch": "1"})
        assert watch.status_code == 403
        for method, path in (
            ("DELETE", "/api/v1/namespaces/a/configmaps/mine"),
            ("DELETE", "/api/v1/namespaces/a/configmaps"),
            ("PATCH", "/api/v1/namespaces/a/configmaps/mine"),
            ("POST", "/api/v1/namespaces/a/configmaps"),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/default/token"),
            ("DELETE", "/api/v1/namespaces/a"),
            ("POST", "/api/v1/namespaces"),
        ):
            assert (await boris.request(method, path, json=config_map("x"))).status_code == 403, path
        assert (await boris.get("/lateen/v1/objects")).status_code == 403
        assert (await boris.post("/lateen/v1/rollback", json={"to": "1"})).status_code == 403
        assert (await boris.get("/apis")).status_code == 200


async def test_nobody_gives_away_more_than_he_has(tenants: Store) -> None:
    async with client_of(tenants, ANNA) as anna:
        path = f"{ROLES}/namespaces/a/roles"
        role: Json = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}}
        role["rules"] = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
        assert (await anna.post(path, json=role)).status_code == 201
        role["metadata"]["name"] = "all"
        role["rules"] = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        refused = await anna.post(path, json=role)
        assert (refused.status_code, "attempting to grant" in refused.json()["message"]) == (403, True)
        grant = binding("a", "friend", "cluster-admin")
        assert (await anna.post(f"{ROLES}/namespaces/a/rolebindings", json=grant)).status_code == 403
        assert (await anna.post(f"{ROLES}/clusterrolebindings", json=grant)).status_code == 403
        acting = await anna.get("/api/v1/namespaces", headers={"impersonate-user": "system:admin"})
        assert acting.status_code == 403


async def test_nobody_in_particular(tenants: Store) -> None:
    async with client_of(tenants, None) as stranger:
        for path in ("/api/v1/namespaces", "/apis", "/openapi/v3", "/lateen/v1/objects"):
            assert (path, (await stranger.get(path)).status_code) == (path, 401)
        for path in ("/healthz", "/readyz", "/version"):
            assert (path, (await stranger.get(path)).status_code) == (path, 200)


async def test_the_owner_may_act_as_others(tenants: Store) -> None:
    async with client_of(tenants, OWNER) as owner:
        headers = {"impersonate-user": ANNA.name}
        assert (await owner.get("/api/v1/namespaces/a/configmaps", headers=headers)).status_code == 200
        assert (await owner.get("/api/v1/namespaces/b/configmaps", headers=headers)).status_code == 403


def test_tokens_are_for_one_account_and_one_audience(tmp_path: Path) -> None:
    now = 1_000_000.0
    tokens = AccountTokens(tmp_path / "tokens.json", lambda: now)
    account = Account("shop", "robot", "u-1")
    token, ends = tokens.issue(account, (), 3600)
    found = tokens.read(token)
    assert found == Account("shop", "robot", "u-1", ends)
    assert tokens.read(tokens.issue(account, ("other",), 3600)[0]) is None
    assert tokens.read(tokens.issue(account, (AUDIENCE, "other"), 3600)[0]) is not None
    assert tokens.read(token[:-4] + "AAAA") is None
    assert AccountTokens(tmp_path / "other.json", lambda: now).read(token) is None
    assert AccountTokens(tmp_path / "tokens.json", lambda: now).read(token) is not None
    now = ends + 60
    assert tokens.read(token) is None


def test_who_a_certificate_and_a_token_are_for() -> None:
    subject = ((("organizationName", "team"),), (("commonName", "jane"),))
    assert of_certificate({"subject": subject}) == User("jane", ("team", "system:authenticated"))
    assert of_certificate(None) is None

    def connection(**headers: str) -> HTTPConnection:
        pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
        return HTTPConnection({"type": "http", "headers": pairs, "state": {"peer": {"subject": subject}}})

    identify = by_credentials(lambda token: ANNA if token == "good" else None)
    assert identify(connection(authorization="Bearer good")) == ANNA
    assert identify(connection()) == User("jane", ("team", "system:authenticated"))
    with pytest.raises(Exception, match="Unauthorized"):
        identify(connection(authorization="Bearer bad"))
