"""Before any test imports torch: threads that wait do not spin, and nobody looks for a hub."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
