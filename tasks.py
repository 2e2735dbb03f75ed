"""What Moorage can do, at a glance. ``inv --list`` shows it, ``inv --help TASK`` explains it."""

from invoke.collection import Collection

from moorage import settings
from moorage.tasks import certs, image, invoke_edges, k8s, lab, learn, nodes, registry, top

invoke_edges.install()

namespace = Collection(
    top.up,
    top.down,
    top.doctor,
    learn.explain,
    certs.namespace,
    registry.namespace,
    image.namespace,
    lab.namespace,
    nodes.namespace,
    k8s.namespace,
)
namespace.configure(settings.defaults())
