"""The name of an engine goes in; a Dask client of it comes out, with the cluster if it is ours."""

from __future__ import annotations

import os


def connect(kind: str, engine: str, resources: dict[str, float] | None) -> tuple:
    """Start the processes or jobs that an engine names, or find a scheduler that runs.

    Parameters
    ----------
    kind : {"local", "tcp", "slurm"}
        Family of the engine.
    engine : str
        As for `motionlib.compute.engines.submit`.
    resources : dict, optional
        What one task occupies, for instance ``{"GPU": 1}``.

    Returns
    -------
    client : distributed.Client
    cluster : distributed.LocalCluster, dask_jobqueue.SLURMCluster or None
        None where the scheduler is somebody else's.

    Raises
    ------
    ValueError
        If no worker of a running scheduler offers the resources.
    """
    from distributed import Client, LocalCluster

    cluster = None
    if kind == "local":
        count = int(engine.partition(":")[2] or os.cpu_count() or 1)
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            resources=resources,
            memory_limit=0,
        )
    elif kind == "slurm":
        from motionlib.compute.slurm import slurm_cluster

        cluster, workers = slurm_cluster(engine.partition(":")[2])
        cluster.scale(jobs=workers)
    client = Client(cluster if cluster is not None else engine, timeout=30, set_as_default=False)
    if kind == "tcp" and resources:
        offers = [worker["resources"] for worker in client.scheduler_info(-1)["workers"].values()]
        if not any(all(o.get(n, 0) >= v for n, v in resources.items()) for o in offers):
            client.close()
            raise ValueError(
                f"No worker of {engine} offers {resources}; start one with "
                "`dask worker --resources GPU=1`, or ask for none."
            )
    if kind == "local" and "GPU" in (resources or {}):
        from motionlib.compute.gpus import OwnGpu, visible_gpus

        client.register_plugin(OwnGpu(visible_gpus()))
    return client, cluster
