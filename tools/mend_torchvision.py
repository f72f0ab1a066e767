"""Let torchvision be imported beside a CPU build of torch.

The package registry has torchvision built for CUDA only. Beside a CPU build of torch its compiled
part cannot load, and `import torchvision` stops with "operator torchvision::nms does not exist"
before its Python parts (which are all that image processors use) are reached. Where, and only where,
that is the case, this script puts two small files into the virtual environment which declare the two
operators (without an implementation) just before torchvision asks for them. Nothing of it is part of
the product, and nothing is done beside a CUDA build of torch or where torchvision works.

Run it with the virtual environment's own Python: python tools/mend_torchvision.py
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''"""Declares torchvision's two compiled operators where its compiled part cannot load (CPU torch)."""
import importlib.abc
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision._meta_registrations":
            sys.meta_path.remove(self)
            import torch
            from torchvision.extension import _has_ops

            if not _has_ops():
                for operator in ("torchvision::nms", "torchvision::qnms"):
                    torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _DeclareOperators())
'''


def torchvision_error() -> str:
    """The last line that a fresh interpreter prints when it imports torchvision; empty if it can."""
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def main() -> int:
    """Detect, mend, say so. Returns 0 if torchvision can be imported at the end."""
    error = torchvision_error()
    if not error:
        return 0
    if "torchvision::nms does not exist" not in error:
        print(f"torchvision cannot be imported, and not for the reason known here: {error}", file=sys.stderr)
        return 1
    import torch

    if torch.version.cuda:
        print(f"torch {torch.__version__} is a CUDA build, yet: {error}", file=sys.stderr)
        return 1
    site = Path(sysconfig.get_paths()["purelib"])
    (site / "_declare_torchvision_operators.py").write_text(HOOK)
    (site / "declare_torchvision_operators.pth").write_text("import _declare_torchvision_operators\n")
    error = torchvision_error()
    if error:
        print(f"mended, but torchvision still cannot be imported: {error}", file=sys.stderr)
        return 1
    print(
        f"set-up: torchvision's compiled part does not load beside the CPU build of torch ({torch.__version__}); "
        f"declared its two operators in {site / 'declare_torchvision_operators.pth'} so that its Python part imports."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
