"""The agents of a cluster: a pod a node that keeps the trust there, on nodes that join later too.

Two grades. *files* may write into the trust folders only and does where the runtime reads a
``config_path`` already; *full* may edit ``config.toml`` and restart the runtime. Every node begins
with the lesser; its agent says where that does not do, and such a node gets the other.
"""

from moorage.cluster.agents.documents import GRADES, Wanted
from moorage.cluster.agents.leaving import forget_nodes, take_trust_away
from moorage.cluster.agents.rollout import Rolled, roll_out
from moorage.cluster.agents.states import marked_nodes

__all__ = [
    "GRADES",
    "Rolled",
    "Wanted",
    "forget_nodes",
    "marked_nodes",
    "roll_out",
    "take_trust_away",
]
