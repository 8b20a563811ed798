"""`python -m jxrecon.drr`: the command `jxrecon project` under the name that scripts know."""

from jxrecon.project import command

if __name__ == "__main__":
    raise SystemExit(command())
