"""The page."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from moorage.tasks.command import Run
from moorage.tasks.on_nodes import Nodes, on_nodes


@on_nodes(
    help={
        "listen": "an address of loopback and a port (else 127.0.0.1:8765; port 0: any)",
        "every": "ask each node so often, in seconds",
        "pods": "look at the cluster's pods too",
        "actions": "offer to verify a node and, with --pods, to fix why pods cannot pull",
    }
)
def web(
    run: Run,
    nodes: Nodes,
    listen: str | None = None,
    every: str = "30",
    pods: bool = False,
    actions: bool = False,
) -> dict[str, Any]:
    """Serve a page of registry, images, nodes and rollouts on loopback until Ctrl-C.

    Read only unless --actions is given.

    Example: inv web
    Example: inv web --hosts=node1,node2 --listen=127.0.0.1:9000 --pods --actions
    """
    from moorage import web as page
    from moorage.fleet import watch
    from moorage.web.access import DEFAULT, PagePlace

    place = PagePlace.parse(listen if listen is not None else DEFAULT)
    seconds = watch.seconds(every)
    with ExitStack() as opened:
        api = None
        if pods:
            from moorage.cluster.login import access

            api = access.connect(
                run.settings,
                kubeconfig=nodes.cluster.kubeconfig, context=nodes.cluster.context,
            )  # fmt: skip
            run.ui.note(f"cluster: {api.where}")
            opened.enter_context(access.typed_for(api))
            nodes = nodes.beside_pods()
        return page.serve(
            run.settings, run.ui, nodes.any_chosen(), place,
            reach=nodes.reach(), every=seconds, api=api, acts=actions,
        )  # fmt: skip
