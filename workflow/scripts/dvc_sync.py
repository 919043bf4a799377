"""Tell one engine what the other has done: `record` what Snakemake made to DVC, `adopt` what DVC brought for Snakemake.

Each engine knows only the files that it placed itself. Both verbs refuse to vouch for a stale file: `record` asks Snakemake
first, `adopt` asks DVC first, and both ask whether dvc.yaml is in step with the rules.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

SNAKEMAKE = [sys.executable, "-m", "snakemake"]
DVC = [sys.executable, "-m", "dvc"]


def output(*command: str) -> str:
    """Standard output and error of a command that has to succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def refuse_links() -> None:
    """Files that are links into DVC's cache keep the cache's old time stamps, by which Snakemake takes a new file for an old one."""
    done = subprocess.run([*DVC, "config", "cache.type"], capture_output=True, text=True, check=False)
    if {"hardlink", "symlink"} & set(done.stdout.strip().split(",")):
        raise SystemExit("error: cache.type has links, whose time stamps mislead Snakemake; run `dvc config cache.type reflink,copy`")


def record() -> None:
    """What Snakemake has made becomes what dvc.lock says and the cache holds."""
    planned = output(*SNAKEMAKE, "--dry-run")
    if "Nothing to be done" not in planned:
        raise SystemExit(f"{planned}\nerror: Snakemake has work left, so results are stale or missing; run `snakemake`, then this again")
    output(*DVC, "commit", "--force")
    print("recorded in dvc.lock; `git commit dvc.yaml dvc.lock` keeps it, `dvc push` shares the files")


def adopt() -> None:
    """What DVC has brought counts for Snakemake as made by the rules, parameters and source files that are here."""
    status = output(*DVC, "status")
    if "up to date" not in status:
        raise SystemExit(
            f"{status}\nerror: these files are not what dvc.lock says; run `dvc pull` if they are missing, `dvc repro` if something changed"
        )
    output(*SNAKEMAKE, "--touch", "--forceall", "--quiet", "all")
    print("adopted: Snakemake takes the results for its own")


def main() -> None:
    """One of the two verbs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["record", "adopt"])
    verb = parser.parse_args().verb
    refuse_links()
    output(sys.executable, "workflow/scripts/dvc_stages.py", "--check")
    record() if verb == "record" else adopt()


if __name__ == "__main__":
    main()
