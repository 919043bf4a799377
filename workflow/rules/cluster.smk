# What happens before the first job. For Slurm its settings are looked at: a wrong one would fail once per job and attempt, far from its cause.
import re
import shutil
import subprocess

from snakemake.logging import logger

PROFILE = "workflow/profiles/slurm/config.yaml"


def partitions():
    """{name: (longest run time in minutes, memory of its largest node in MB)}, as Slurm says."""
    query = ["sinfo", "--noheader", "--Node", "--format", "%R|%l|%m"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkflowError(
            f"Slurm does not answer ({done.stderr.strip()}). Nothing was submitted; try again when `sinfo` lists partitions."
        )
    found = {}
    for line in done.stdout.splitlines():
        name, limit, memory = line.strip().split("|")
        time = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", limit)  # else "infinite"
        days, hours, minutes, _ = [int(part or 0) for part in time.groups()] if time else (0, 0, 0, 0)
        longest = (days * 24 + hours) * 60 + minutes if time else float("inf")
        found[name] = (longest, max(int(memory.rstrip("+")), found.get(name, (0, 0))[1]))
    return found


def check_slurm(jobs):
    if shutil.which("sbatch") is None:
        raise WorkflowError(
            "--profile slurm submits jobs with sbatch, which this machine does not have. Log in to a machine of the cluster "
            "that has it, or leave the profile out to run everything here. Nothing was submitted."
        )
    known, refused = partitions(), {}
    for job in jobs:
        name = job.resources.get("slurm_partition")
        names = [] if name is None else str(name).split(",")
        if not known.keys() >= set(names):
            raise WorkflowError(
                f"Stage {job.rule.name}: this cluster has no partition '{name}'; there are {', '.join(sorted(known))}. "
                f"Set partition and gpu_partition at the top of {PROFILE}. Nothing was submitted."
            )
        asked = {"runtime": job.resources.get("runtime"), "mem_mb": job.resources.get("mem_mb")}
        given = map(max, zip(*(known[each] for each in names or known)))
        for (key, amount), most in zip(asked.items(), given):
            if isinstance(amount, int) and amount > most:
                raise WorkflowError(
                    f"Stage {job.rule.name} asks for {key}={amount}, but partition {name or 'any'} gives at most {most}. "
                    f"Set `limits: {{{key}: {most}}}` in config/config.yaml. Nothing was submitted."
                )
            if isinstance(amount, int):
                last = min(amount * (1 + job.rule.restart_times), getattr(WORKFLOW.limits, key))  # as `growing` has it
                if last > most:
                    refused[key] = (last, most, job.rule.name)
    for key, (last, most, stage) in refused.items():
        logger.warning(
            f"A job of {stage} that is tried again would ask for up to {key}={last}, which Slurm refuses: its partition gives {most}. "
            f"Set `limits: {{{key}: {most}}}` in config/config.yaml."
        )


def without_default_rate_limit():
    """Snakemake's default of at most 100 new jobs a second is kept by timers: every look for work starts another one, so that there is
    one more for each job that has ended, and each looks again every second. After 160 jobs that was half a core for nothing (Snakemake
    9.27; its issues 2967 and 3955). Whoever asks for another limit keeps it.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


onstart:
    without_default_rate_limit()
    if workflow.executor_plugin.name == "slurm":
        check_slurm(workflow.dag.needrun_jobs())
