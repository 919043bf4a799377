"""Tell one engine what the other has done: `record` what Snakemake made to DVC, `adopt` what DVC placed for Snakemake.

Each engine knows only the files that it placed itself. Neither verb vouches for a stale file: `record` asks Snakemake first,
`adopt` asks DVC first, and both ask whether dvc.yaml is in step with the rules. `pull` is `dvc pull` and `adopt`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from coderl.records import second_name

SNAKEMAKE = [sys.executable, "-m", "snakemake"]
DVC = [sys.executable, "-m", "dvc"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
"""A cluster's profile may choose other runs than config/config.yaml, and nothing here is sent to a cluster."""
KEPT = Path("work/keep")
SHOWN = 20  # lines of what an engine says, before the message


def output(*command: str) -> str:
    """Standard output and error of a command that has to succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def refuse(said: str, message: str) -> None:
    """Stop with what the engine said, shortened, and what to do."""
    lines = said.rstrip().splitlines()
    rest = [f"... and {len(lines) - SHOWN} lines more"] if len(lines) > SHOWN else []
    raise SystemExit("\n".join([*lines[:SHOWN], *rest, f"error: {message}"]))


def refuse_links() -> None:
    """Files that are links into DVC's cache keep the cache's old time stamps, by which Snakemake takes a new file for an old one."""
    done = subprocess.run([*DVC, "config", "cache.type"], capture_output=True, text=True, check=False)
    if {"hardlink", "symlink"} & set(done.stdout.strip().split(",")):
        raise SystemExit("error: cache.type has links, whose time stamps mislead Snakemake; run `dvc config cache.type reflink,copy`")


def keep_results() -> None:
    """Second names for what both engines now agree on (see records.keep): DVC deletes it when it runs a stage for whatever reason."""
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.copytree("results", KEPT / "results", copy_function=second_name)


def record() -> None:
    """What Snakemake has made becomes what dvc.lock says and the cache holds."""
    planned = output(*SNAKEMAKE, "--dry-run")
    if "Nothing to be done" not in planned:
        stale = planned.partition("Job stats:")[2].partition("\n\n")[0]
        refuse(stale, "Snakemake has work left, so results are stale or missing; run `snakemake`, then this again")
    output(*DVC, "commit", "--force")
    keep_results()
    print("recorded in dvc.lock; `git commit dvc.yaml dvc.lock` keeps it, `dvc push` shares the files")


def adopt() -> None:
    """What DVC has placed counts for Snakemake as made by the rules, parameters and source files that are here."""
    status = output(*DVC, "status")
    if "up to date" not in status:
        refuse(status, "these files are not what dvc.lock says; run `make pull` if they are missing, `dvc repro` if something changed")
    output(*SNAKEMAKE, "--touch", "--forceall", "--quiet", "all")
    keep_results()
    print("adopted: Snakemake takes the results for its own")


def pull() -> None:
    """Bring what dvc.lock names from the remote, and adopt it."""
    if not Path("dvc.lock").exists():
        raise SystemExit("error: no dvc.lock, so there is nothing to pull; make the results (`dvc repro`) and record them")
    name = output(*DVC, "config", "core.remote").strip()
    place = output(*DVC, "config", f"remote.{name}.url").strip()  # not `dvc remote list`, which breaks long lines
    if "://" not in place and not Path(place).is_dir():
        raise SystemExit(
            f"error: the remote '{name}' is not here ({place}); say where `dvc push` has put the files:\n"
            f"  dvc remote modify --local {name} url <folder, s3://bucket/path or ssh://host/path>\n"
            "or make them here: dvc repro"
        )
    done = subprocess.run([*DVC, "pull"], env=ENVIRONMENT, check=False)
    if done.returncode:
        raise SystemExit(
            f"error: not all files are in the remote '{name}' ({place}); run `dvc push` where they were made, or `dvc repro` here"
        )
    adopt()


def main() -> None:
    """One of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = {"record": record, "adopt": adopt, "pull": pull}
    parser.add_argument("verb", choices=verbs)
    verb = parser.parse_args().verb
    refuse_links()
    output(sys.executable, "workflow/scripts/dvc_stages.py", "--check")
    verbs[verb]()


if __name__ == "__main__":
    main()
