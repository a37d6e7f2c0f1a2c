"""`python -m oelm_lib.cli` is the `oelm` command."""

from oelm_lib.cli import main

if __name__ == "__main__":
    main(prog_name="oelm")
