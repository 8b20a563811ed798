"""`python -m jxrecon.drr`: the command `jxrecon project` under the name that scripts know."""

from jxrecon.cli import entry
from jxrecon.project import main

if __name__ == "__main__":
    raise SystemExit(entry(main))
