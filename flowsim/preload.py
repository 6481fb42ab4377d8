"""What the process that others are forked from imports first: it looks for no garbage among what it imports after that.

Nor do those that are forked from it, in which garbage is collected again: to look at what they share would copy it.
"""

import gc
import os

gc.disable()
os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
