"""Dask clients of the engines: processes of this machine, a running scheduler, jobs of SLURM."""

import os
import re
from pathlib import Path

import dask
import yaml
from distributed import Client, LocalCluster, WorkerPlugin

# what its sampler keeps of every second grows by gigabytes in a night
dask.config.set({"distributed.worker.profile.enabled": False})
HERE = re.compile(r"tcp://(localhost|127\.[0-9.]+|\[::1\]):\d+")
EXPORTS = ("OMP_NUM_THREADS=1", "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False")
PLAIN = "MOTIONLIB_PLAIN_DASK"  # 1 allows a scheduler of another computer without TLS
SLURM_NEEDS = {"workers", "cores", "memory", "walltime"}
SLURM_KNOWS = {
    *("queue", "account", "gpus", "interface", "host", "python", "prologue", "directives"),
    *("log_directory", "local_directory", "shared_temp_directory", "lifetime"),
}


def connect(kind: str, engine: str, resources: dict[str, float] | None) -> tuple:
    """Start the processes or jobs that an engine names, or find a scheduler that runs.

    `kind` is ``local``, ``tcp``, ``tls`` or ``slurm``; `engine` and `resources` are those of
    `engines.submit`. Returns the client, and its cluster unless that is somebody else's. Who
    reaches a scheduler can run code on its workers: what is started here asks for a certificate
    made for the occasion. ValueError if a running scheduler of another computer is not encrypted
    and `PLAIN` does not allow that, or if none of its workers offers the resources.
    """
    cluster = None
    if kind == "local":
        count = int(engine.partition(":")[2] or os.cpu_count() or 1)
        cluster = LocalCluster(
            n_workers=count, threads_per_worker=1, resources=resources, memory_limit=0,
            host="127.0.0.1", security=True,
            dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
        )  # fmt: skip
    elif kind == "slurm":
        cluster, workers = slurm_cluster(engine.partition(":")[2])
        cluster.scale(jobs=workers)
    elif kind == "tcp" and not HERE.fullmatch(engine) and os.environ.get(PLAIN) != "1":
        raise ValueError(
            f"{engine} is not encrypted, and whoever reaches that port can run code on its "
            f"workers: give tls://HOST:PORT, or set {PLAIN}=1 in a network that you trust."
        )
    client = Client(cluster if cluster is not None else engine, timeout=30, set_as_default=False)
    if kind in ("tcp", "tls") and resources:
        offers = [worker["resources"] for worker in client.scheduler_info(-1)["workers"].values()]
        if not any(all(o.get(n, 0) >= v for n, v in resources.items()) for o in offers):
            client.close()
            raise ValueError(
                f"No worker of {engine} offers {resources}; start one with "
                "`dask worker --resources GPU=1`, or ask for none."
            )
    if kind == "local" and "GPU" in (resources or {}):
        client.register_plugin(OwnGpu(visible_gpus()))
    return client, cluster


class OwnGpu(WorkerPlugin):
    """Show a worker one of `gpus`, by its number; more workers than GPUs share them in turn."""

    name = "own-gpu"

    def __init__(self, gpus: list[str]):
        self.gpus = list(gpus)

    def setup(self, worker) -> None:
        """Choose before the worker's first task, hence before CUDA starts in it."""
        if not self.gpus:
            return  # torch itself says, in the task, that there is none
        os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker.name) % len(self.gpus)]


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    import torch  # which this room does without elsewhere

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]


def slurm_cluster(file: str | os.PathLike) -> tuple:
    """Make (not start) the SLURM cluster that a profile file describes, and the jobs to ask for.

    The YAML file has `workers` (jobs to ask for), `cores`, `memory`, `walltime`, and optionally
    `queue`, `account`, `gpus` (0 or 1 a job), `interface`, `python`, `prologue` (list of shell
    lines), `directives` (list of extra ``#SBATCH`` options), `log_directory`, `local_directory`,
    `shared_temp_directory` (where the jobs find their certificate; default: where the command is
    called), `lifetime` (shorter than the walltime, so that workers hand over), `host` (address of
    this scheduler). Without a GPU a job runs one worker a core. The cluster's `job_script()` is
    what will be submitted. FileNotFoundError if the profile is not there; ValueError if a key is
    unknown or missing, or dask-jobqueue is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"SLURM profile {file} is not there; give slurm:FILE.yaml.")
    profile = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    unknown = sorted(set(profile) - SLURM_NEEDS - SLURM_KNOWS)
    missing = sorted(SLURM_NEEDS - set(profile))
    if unknown or missing:
        raise ValueError(
            f"SLURM profile {path.name} has unknown keys {unknown} and lacks {missing}; known keys "
            f"are {sorted(SLURM_NEEDS | SLURM_KNOWS)}."
        )
    try:
        from dask_jobqueue import SLURMCluster  # an extra
    except ImportError as error:
        raise ValueError(
            "Engine slurm needs dask-jobqueue; install motionlib with its [hpc] extra."
        ) from error
    gpus, cores = int(profile.get("gpus", 0)), int(profile["cores"])
    if gpus > 1:
        raise ValueError(f"A job asks for {gpus} GPUs; ask for one a job and for more workers.")
    # what Dask's worker command, SLURM and the scheduler are told
    extra = ["--resources", f"GPU={gpus}"] if gpus else []
    if "lifetime" in profile:
        extra += ["--lifetime", str(profile["lifetime"]), "--lifetime-stagger", "5m"]
    processes = 1 if gpus else cores
    resources = [f"--gres=gpu:{gpus}"] if gpus else []
    host = {"host": profile["host"]} if "host" in profile else {}
    more = list(profile.get("prologue", []))
    options = {
        # one thread a process; a GPU's other cores feed it
        "cores": processes, "processes": processes, "job_cpu": cores, "worker_extra_args": extra,
        "memory": str(profile["memory"]), "walltime": str(profile["walltime"]), "security": True,
        "job_script_prologue": [f"export {word}" for word in EXPORTS] + more,
        "job_extra_directives": [*resources, *profile.get("directives", [])],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0", **host},
        "shared_temp_directory": os.getcwd(),
    }  # fmt: skip
    kept = SLURM_KNOWS - {"gpus", "prologue", "directives", "lifetime", "host"}
    options |= {name: profile[name] for name in kept & set(profile)}
    return SLURMCluster(**options), int(profile["workers"])
