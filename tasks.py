"""What Moorage can do, at a glance. ``inv --list`` shows it, ``inv --help TASK`` explains it."""

import os

from invoke.collection import Collection

from moorage import settings
from moorage.configuration import profiles
from moorage.program import edges
from moorage.tasks import bundle, config, k8s, lab, learn, monitoring, nodes, top, web
from moorage.tasks.registry import certs, image, images, registry, upkeep, users

edges.install()

namespace = Collection(
    top.up,
    top.down,
    top.doctor,
    top.support,
    learn.explain,
    learn.tutorial,
    config.namespace,
    certs.namespace,
    registry.namespace,
    users.namespace,
    upkeep.namespace,
    image.namespace,
    images.namespace,
    bundle.namespace,
    lab.namespace,
    nodes.namespace,
    k8s.namespace,
    monitoring.namespace,
    web.web,
)
namespace.configure(settings.defaults(profiles.current(os.environ)))
