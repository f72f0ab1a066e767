"""`python -m perpo_eval.cli`: perpo-eval, for launchers of several processes."""

import sys

from perpo_eval.cli.eval import main

sys.exit(main())
