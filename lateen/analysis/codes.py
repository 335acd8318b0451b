"""Codes that are not said by a check: what validation, coverage and the proxies themselves have to say."""

from __future__ import annotations

import msgspec

from lateen.lib.findings import Level


class Code(msgspec.Struct, frozen=True):
    """A code with its documentation in Markdown, for people."""

    code: str
    level: Level
    title: str
    text: str


CODES: tuple[Code, ...] = (
    Code(
        "IST0106",
        Level.ERROR,
        "A document does not fit its schema",
        """
A field is unknown or has the wrong type, a value is out of its bounds, a required field is missing, or fields
contradict each other. Nothing of the file is applied: the mesh stays as it was.

    spec.http[0].timout: there is no field "timout" here (did you mean "timeout"?)

The finding names file, line and column, what was expected and what to do. All errors of all documents are listed
at once. As a WARNING it points out something that is allowed and probably not meant.
""",
    ),
    Code(
        "IST0002",
        Level.WARNING,
        "A field is deprecated",
        """
The field still has its effect, and there is a newer one for it.

    fault: {delay: {percent: 10, fixedDelay: 5s}}   # percentage: {value: 10}

Use the field that the finding names.
""",
    ),
    Code(
        "IST0128",
        Level.WARNING,
        "A server's certificate is checked against the system's roots only",
        """
A DestinationRule with TLS mode SIMPLE or MUTUAL names no roots. For servers on the internet that is right; for one
with a certificate of your own the connection fails.

    tls: {mode: SIMPLE, sni: db.example.com}

Set `caCertificates`, or `subjectAltNames` besides when any certificate of those roots would do.
""",
    ),
    Code(
        "IST0130",
        Level.WARNING,
        "No request reaches a rule",
        """
Rules of a VirtualService are tried in order, and the first that matches counts. A rule before this one takes every
request (or connection), has the same match, or a wider one.

    http:
    - route: [{destination: {host: reviews, subset: v1}}]
    - match: [{headers: {end-user: {exact: jason}}}]
      route: [{destination: {host: reviews, subset: v2}}]

Move the rule up, or give the one before it a match.
""",
    ),
    Code(
        "IST0131",
        Level.WARNING,
        "A match has no effect",
        """
A rule of a VirtualService has several matches, and a rule before it takes all that one of them would match. The
others have their effect.

    http:
    - match: [{uri: {prefix: /api}}]
      route: [{destination: {host: reviews, subset: v1}}]
    - match: [{uri: {prefix: /api/v2}}, {uri: {prefix: /new}}]
      route: [{destination: {host: reviews, subset: v2}}]

Move the rule up, or leave the match out.
""",
    ),
    Code(
        "LTN0001",
        Level.WARNING,
        "A field is not implemented yet",
        """
The field is part of the API and lateen does nothing with it so far. Everything else of the object has its effect.

Do not rely on it. Fields that need nothing done here have the code LTN0006.
""",
    ),
    Code(
        "LTN0002",
        Level.ERROR,
        "A text is not YAML",
        """
A document cannot be read: its indentation, quotes or brackets are broken, a key is there twice, or it is beyond the
bounds (100 levels deep, 32 million characters). The other documents of the file are looked at all the same, so that
all errors are seen at once; nothing of the file is applied.

    key 'spec' is here a second time (the first is on line 5)

Scalars mean what they mean to Kubernetes' own tools: `yes`, `on` and `y` are true. Put text in quotes.
""",
    ),
    Code(
        "LTN0003",
        Level.ERROR,
        "There is no such kind",
        """
`apiVersion` and `kind` of a document name nothing that lateen knows: a typing error, a version that is served no
more (`extensions/v1beta1`), or a kind of something else.

    apiVersion: networking.istio.io/v1
    kind: VirtualSevice

The finding says which version or kind comes near.
""",
    ),
    Code(
        "LTN0004",
        Level.ERROR,
        "A kind is not supported yet",
        """
The kind exists in Kubernetes or one of its extensions, and lateen does not take it so far.

Leave it out of what is applied.
""",
    ),
    Code(
        "LTN0005",
        Level.WARNING,
        "A kind has no effect yet",
        """
Objects of this kind are checked and stored, and nothing is done with them so far.
""",
    ),
    Code(
        "LTN0006",
        Level.INFO,
        "A field has no effect here",
        """
The field means something in a cluster and needs nothing done where lateen runs: there are no container images and
no nodes to choose from on one machine. The finding says why.
""",
    ),
    Code(
        "LTN0010",
        Level.ERROR,
        "An object is there twice",
        """
Two documents of one call or one folder are the same object: same kind, namespace and name. Of a call nothing is
applied; of a folder the first one counts, and the finding is a WARNING.

Keep one of them.
""",
    ),
    Code(
        "LTN0011",
        Level.ERROR,
        "There is no such namespace",
        """
An object is to be in a namespace that does not exist.

    apiVersion: v1
    kind: Namespace
    metadata: {name: team-a}

Apply the Namespace first, or in the same call.
""",
    ),
    Code(
        "LTN0012",
        Level.ERROR,
        "An object cannot be stored",
        """
The store refuses the object as it stands: its name may have changed in the meantime, a field that cannot change was
changed, or it does not decode. The message says which.
""",
    ),
    Code(
        "LTN0242",
        Level.WARNING,
        "The last good version of an object stays in force",
        """
An object in a folder is wrong, or its file cannot be read. It stays as it was when it was last right, as if the
change had not been made; one that was never right is not there. Everything else of the folder goes on. The errors
beside this finding say what is wrong.

Correct the file. `lateen apply` refuses such a file instead, and changes nothing.
""",
    ),
    Code(
        "LTN0013",
        Level.WARNING,
        "A mass deletion is held",
        """
So many files of a folder vanished at once that it looks like an accident: an empty mount, a half-done checkout. What
they said stays in force.

Bring the files back; or, if it is meant, touch the file `.allow-mass-delete` in the folder.
""",
    ),
    Code(
        "LTN0370",
        Level.WARNING,
        "Errors jumped after a change",
        """
Right after this version of the object came into force, the share of failed calls of a host rose, by more than chance
explains. Proxies count the HTTP and gRPC requests they send, for each host; what was counted in the minute before the
change is compared with what came after it, from 20 requests on each side. Server errors (5xx, and gRPC statuses that
are the server's fault) and client errors (4xx) are told apart.

    VirtualService default/details: server errors of details.default.svc.cluster.local rose from 0 % of 412 to
    100 % of 36 requests after this change

`lateen history` shows the revision with this mark for as long as it is kept. Of changes that come too close together
to tell apart, each is marked and says so.

Roll the object back (`lateen rollback KIND/NAME`) or correct it. The finding ends with its next change.
""",
    ),
    Code(
        "LTN0380",
        Level.WARNING,
        "A workload asks for too many unknown names",
        """
Sidecars ask for the hosts that their workloads call, when they call them, and every name that nobody knows costs the
proxy a virtual host of its own. A workload that calls hundreds of them (a scanner, a crawler, random names in a test)
would fill it, so from some number on its proxy is given the whole mesh at once, where an unknown name costs nothing.

The finding is on the Pod or WorkloadEntry while its proxy is connected like that; `lateen_xds_sated_total` counts.

Find out what the workload calls (its access log has the hosts). Make hosts known that it should call by a ServiceEntry,
and narrow what it gets by a Sidecar. Its next proxy begins anew.
""",
    ),
    Code(
        "LTN0020",
        Level.ERROR,
        "Envoy refuses what an object becomes",
        """
The proxies refused the configuration that was made of this object. Its last good version stays in force, or none
when there was none; all other objects are live. Of an EnvoyFilter only the patches that are refused are left out, each
with a finding of its own; the others are in force.

Correct the object. The finding goes away with the next good version, which is live at once.
""",
    ),
    Code(
        "LTN0267",
        Level.WARNING,
        "A proxy was started without a patch of its bootstrap",
        """
Before a proxy starts, Envoy is asked whether it would with the bootstrap that an EnvoyFilter patches. It would not with
this patch, so the proxy was started without it; the other patches apply. A proxy that ends before it was ever ready is
started again without any.

    applyTo: BOOTSTRAP
    patch: {operation: MERGE, value: {stats_sinks: [{name: nothing.that.exists}]}}

The finding has Envoy's words. Correct the patch, then restart the Pod.
""",
    ),
    Code(
        "LTN0268",
        Level.INFO,
        "The settings of a running proxy have changed",
        """
A ProxyConfig, the mesh's `defaultConfig`, or an EnvoyFilter that patches the bootstrap says something else than when
this Pod's proxy was started. Such settings hold from a start to the end of a proxy, so this one runs with those of
before.

Restart the Pod when it suits: delete it, or `kubectl rollout restart` what made it.
""",
    ),
    Code(
        "LTN0601",
        Level.WARNING,
        "A Pod cannot run as it is written",
        """
The local platform cannot start the Pod: a container has no `command` (there are no images to take one from), a value
it needs is not there, or it asks for something that only a cluster has. The message says what.
""",
    ),
    Code(
        "LTN0222",
        Level.INFO,
        "Port-level settings replace the rest of a policy",
        """
A DestinationRule has `portLevelSettings` for a port, and these replace its `trafficPolicy` there wholly: what they
leave out is at its default, not what the policy says.

    trafficPolicy:
      outlierDetection: {consecutive5xxErrors: 3}
      portLevelSettings:
      - {port: {number: 9080}, loadBalancer: {simple: RANDOM}}   # nobody is ejected on port 9080

Say again at the port what it is to keep.
""",
    ),
    Code(
        "LTN0108",
        Level.WARNING,
        "A selector without labels picks every workload",
        """
An empty `workloadSelector` of a ServiceEntry makes every Pod and WorkloadEntry of the namespace an endpoint.

    workloadSelector: {}

Set `labels`.
""",
    ),
    Code(
        "LTN0340",
        Level.ERROR,
        "The CA in Secret cacerts cannot be used",
        """
Secret `cacerts` of the root namespace holds the mesh's certificate authority (`ca-cert.pem`, `ca-key.pem`,
`root-cert.pem`, `cert-chain.pem`, and `ca-crl.pem` if it has revocation lists). What it holds now is none: a file is
missing, the key is another one's, a certificate is over, or the chain does not lead to the root.

    ca-key.pem is not the key of ca-cert.pem: they must be made together

The CA that signs stays in force. Mend the Secret; it is looked at again whenever it changes.
""",
    ),
    Code(
        "LTN0360",
        Level.ERROR,
        "A custom resource does not fit its definition",
        """
The schema in the CustomResourceDefinition does not allow what the object says: a required field is missing, a value
has the wrong type or is out of bounds, or a rule (`x-kubernetes-validations`) does not hold. For a definition itself:
its schema is not structural, or one of its names belongs to another kind.

    spec.replicas: Invalid value: 11: should be less than or equal to 10

The path leads to the value. Correct the object, or the schema.
""",
    ),
    Code(
        "LTN0361",
        Level.ERROR,
        "A field never changes once the object is there",
        """
What the field says was used when the object was made, and cannot be changed afterwards: the selector of a Deployment,
the template of a Job, the role of a binding, data of an immutable Secret.

    spec.selector: field is immutable

Delete the object and make a new one.
""",
    ),
)
