"""Sweepers and launchers that Hydra finds here.

It imports them at every start, so they import what they run on only when they run.
"""

import warnings

# Our files of these names stand before those of Hydra and its plugins, which Hydra would tell at
# every start; said here, processes that are handed a job know it too.
warnings.filterwarnings("ignore", message=r"\s*'hydra/\w+/\w+' is validated against ConfigStore")
