"""`python -m kproxy.cli`: the command without its script."""

import sys

from kproxy.cli import main

sys.exit(main())
