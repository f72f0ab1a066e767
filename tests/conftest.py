"""Before any test imports torch: threads that wait do not spin, nobody looks for a hub, and Ctrl-C is heard."""

import os
import signal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup; the programs that tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
