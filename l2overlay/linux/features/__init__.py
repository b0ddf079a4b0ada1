"""What a node has on its host, one module a feature. `FEATURES` is the order in which they are planned.

To add one: a module with a subclass of `Feature` and the changes that only it makes, and its place in the list. What the
configuration asks of it comes as one of `HostSpec.extras`.
"""

from l2overlay.linux.feature import Feature
from l2overlay.linux.features.addresses import Addresses
from l2overlay.linux.features.bridge import Bridge
from l2overlay.linux.features.gateway import Gateway
from l2overlay.linux.features.netfilter import Netfilter
from l2overlay.linux.features.tap import Tap

FEATURES: tuple[Feature, ...] = (Bridge(), Netfilter(), Tap(), Addresses(), Gateway())
"""Each builds on those before it, and is undone before them."""
