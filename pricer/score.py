"""The command `python -m pricer.score`, kept short for the fingers: see `pricer.scoring.__main__`."""

import sys

from pricer.scoring.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
