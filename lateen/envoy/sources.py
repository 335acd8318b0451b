"""Where Envoy gets further configuration from: the ADS stream, or the agent's SDS socket.

No time limits: a proxy that went on without a route table or a certificate would fail requests it should carry.
"""

from __future__ import annotations

from envoy.config.core.v3 import config_source_pb2
from envoy.config.core.v3.config_source_pb2 import ApiConfigSource, ConfigSource
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig

SDS_CLUSTER = "sds-grpc"
CERTIFICATE = "default"
"""The SDS name of the workload's own certificate."""
TRUST = "ROOTCA"
"""The SDS name of the mesh's trust."""
CREDENTIAL_PREFIX = "kubernetes://"
"""Before the name of a Secret: the SDS name of a gateway's credential."""
FILE_CERTIFICATE_PREFIX = "file-cert:"
"""Before the names of files with a certificate and its key."""
FILE_AUTHORITY_PREFIX = "file-root:"
"""Before the names of files with certificate authorities and with what they revoked, which may be empty."""
FILE_SEPARATOR = "~"
CA_SUFFIX = "-cacert"
"""After it: the certificate authorities that clients' certificates are checked with."""


CLUSTER_TIMEOUT_S = 5
"""How long a request or connection waits for a cluster that is asked for. Clusters are sent ahead of the routes to
them, so for requests this is about one that had to be made again meanwhile."""


def set_ads(source: ConfigSource) -> None:
    """Points at the stream the resource itself came by."""
    source.ads.SetInParent()
    source.resource_api_version = config_source_pb2.V3
    source.initial_fetch_timeout.SetInParent()


def add_own_secret(config: SdsSecretConfig, name: str) -> None:
    """Points at one of the workload's own secrets, served by the agent."""
    config.name = name
    api = config.sds_config.api_config_source
    api.api_type = ApiConfigSource.GRPC
    api.transport_api_version = config_source_pb2.V3
    api.set_node_on_first_message_only = True
    service = api.grpc_services.add()
    service.envoy_grpc.cluster_name = SDS_CLUSTER
    # Envoy's own back-off goes up to 30 s: too long to wait for a restarted agent.
    backoff = service.retry_policy.retry_back_off
    backoff.base_interval.nanos = 50_000_000
    backoff.max_interval.seconds = 1
    config.sds_config.resource_api_version = config_source_pb2.V3
    config.sds_config.initial_fetch_timeout.SetInParent()


def add_credential(config: SdsSecretConfig, name: str) -> None:
    """Points at a Kubernetes Secret, served by the control plane to gateways of its namespace."""
    config.name = CREDENTIAL_PREFIX + name.removeprefix(CREDENTIAL_PREFIX)
    set_ads(config.sds_config)


def add_files(config: SdsSecretConfig, prefix: str, first: str, second: str) -> None:
    """Points at files of the proxy, which reads them again when one is moved into their directory. The control plane
    serves only their names."""
    config.name = f"{prefix}{first}{FILE_SEPARATOR}{second}"
    set_ads(config.sds_config)
