"""One submit over every engine: order kept, failures as values, the same numbers everywhere."""

import functools
import itertools
import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from prepared_set import counted_fit, prepared_set

from motionlib import compute
from motionlib.compute import clusters, engines
from motionlib.compute.clusters import slurm_cluster
from motionlib.compute.engines import Failure, raise_failures, shard, submit
from motionlib.experiments.evaluation import Evaluation, evaluate
from motionlib.study.run import Run
from motionlib.training.spec import TrainSpec

TESTS = Path(__file__).parents[1]
PROFILE = """\
workers: 4
cores: 8
memory: 64GB
walltime: "10:00:00"
queue: gpu
account: neuro
gpus: 1
lifetime: 585m
python: python3
host: 127.0.0.1
prologue: ["module load cuda"]
directives: ["--constraint=h100"]
log_directory: logs
"""

JOB_SCRIPT = """\
#!/usr/bin/env bash

#SBATCH -J dask-worker
#SBATCH -e logs/dask-worker-%J.err
#SBATCH -o logs/dask-worker-%J.out
#SBATCH -p gpu
#SBATCH -A neuro
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=60G
#SBATCH -t 10:00:00
#SBATCH --gres=gpu:1
#SBATCH --constraint=h100
export OMP_NUM_THREADS=1
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
module load cuda
"""
WORKER = (
    "python3 -m distributed.cli.dask_worker tls://127.0.0.1:PORT"
    " --name dummy-name"
    " --nthreads 1"
    " --memory-limit 59.60GiB"
    " --nanny"
    " --death-timeout 60"
    " --resources GPU=1"
    " --lifetime 585m"
    " --lifetime-stagger 5m"
    " --protocol tls://"
    " --tls-ca-file FILE --tls-cert FILE --tls-key FILE"
)


def inverse(x: float) -> float:
    """Fail at zero."""
    return 1 / x


def when_there(path: str | None) -> None:
    """Return at once, or say that it waits and return when there is a file."""
    if path:
        Path(f"{path}-begun").touch()
    while path and not os.path.exists(path):
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def _stop_clusters():
    yield
    compute.close()


@pytest.fixture
def external(tmp_path):
    """A scheduler and two workers of their own processes; gives its address and the workers."""
    script = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = tmp_path / "scheduler.json"
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        "OMP_NUM_THREADS": "1",
        "PAUSE_S": "0.1",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    options += ["--scheduler-file", str(address_file)]
    started = [subprocess.Popen([*script, *options], **quiet)]
    deadline = time.monotonic() + 60
    while not address_file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard"]
    worker += ["--scheduler-file", str(address_file), "--nthreads", "1", "--host", "127.0.0.1"]
    worker += ["--local-directory", str(tmp_path)]
    started += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    from distributed import Client

    with Client(scheduler_file=str(address_file), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=90)
        address = client.scheduler.address
    yield address, started[1:]
    compute.close()
    for process in reversed(started):
        process.kill()
        process.wait()


class TestSubmit:
    @pytest.mark.parametrize("engine", ["inline", "local:2"])
    def test_order_is_kept_and_failures_are_values(self, engine):
        results = submit(functools.partial(operator.truediv, 1), [4, 0, 2], engine=engine)
        assert results == [0.25, Failure(0, "an unexpected fault, division by zero"), 0.5]

    @pytest.mark.parametrize("engine", ["inline", "local:2"])
    def test_batches_change_nothing(self, engine):
        results = submit(operator.neg, range(7), engine=engine, batch=3)
        assert results == [0, -1, -2, -3, -4, -5, -6]

    def test_no_items_give_no_results(self):
        assert submit(inverse, []) == []

    def test_an_interrupt_is_not_swallowed(self):
        def stop(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            submit(stop, [1])

    def test_a_result_that_has_come_is_not_held_by_its_worker(self, tmp_path):
        # a worker that dies would take it along, and it would be computed again
        submit(operator.neg, [1], engine="local:2")
        client = engines._clients["local:2", ()][0]  # other tests may have left other clients
        held = []

        def watch():
            deadline = time.monotonic() + 60
            while not (tmp_path / "go-begun").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            while (not held or held[-1] != 1) and time.monotonic() < deadline:
                held.append(
                    client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
                )
                time.sleep(0.05)
            (tmp_path / "go").touch()

        watcher = threading.Thread(target=watch)
        items = [None] * 8 + [str(tmp_path / "go")]
        watcher.start()
        assert submit(when_there, items, engine="local:2") == [None] * 9
        watcher.join()
        assert held[-1] == 1

    def test_its_workers_keep_no_profile_of_every_second(self):
        # Dask's sampler held a tree of calls for each: 0.1 MB a scored scan and worker
        submit(operator.neg, [1], engine="local:2")
        client = engines._clients["local:2", ()][0]
        kept = client.run(lambda dask_worker: sorted(dask_worker.periodic_callbacks))
        assert len(kept) == 2
        assert not any("profile" in name for names in kept.values() for name in names)

    def test_its_processes_listen_on_this_computer_only(self):
        submit(operator.neg, [1], engine="local:2")
        here = psutil.Process()
        every = [here, *here.children(recursive=True)]
        listening = [
            one.laddr.ip
            for process in every
            for one in process.net_connections(kind="inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 3  # scheduler and two workers
        assert set(listening) == {"127.0.0.1"}

    def test_progress_ends_with_the_count_and_the_failures(self):
        lines = []
        submit(inverse, [1, 0, 2], label="halve", progress=lines.append)
        assert lines[-1] == "halve: 3/3, 1 failed, about 0 s left"

    @pytest.mark.parametrize(
        "engine", ["ray", "local:x", "local:0", "slurm:", "shard", "tcp:host", "inlinex"]
    )
    def test_unknown_engine_is_named(self, engine):
        with pytest.raises(ValueError, match="is not known; use inline, local"):
            submit(inverse, [1], engine=engine)

    def test_resources_that_no_worker_offers_are_refused(self, external):
        address, _ = external
        with pytest.raises(ValueError, match=r"No worker of .* offers"):
            submit(operator.neg, [1], engine=address, resources={"GPU": 1})


class TestStrangers:
    """Who reaches a scheduler can run code on its workers, so it asks who comes."""

    def test_the_processes_of_this_computer_take_no_work_from_others(self):
        from distributed import Client, Security

        submit(operator.neg, [1], engine="local:2")
        address = engines._clients["local:2", ()][0].scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        for place, proof in (
            (address.replace("tls", "tcp"), None),
            (address, Security.temporary()),  # encrypted, with a certificate of its own making
        ):
            with pytest.raises(OSError, match=r"reset by peer|imed out|TLS|closed"):
                Client(place, security=proof, timeout="2s", set_as_default=False)

    def test_a_plain_scheduler_of_another_computer_needs_a_word(self, monkeypatch):
        monkeypatch.setattr(clusters, "Client", lambda address, **options: address)
        for own in ("tcp://127.0.0.1:8786", "tcp://localhost:8786", "tls://cluster:8786"):
            assert clusters.connect(own[:3], own, None) == (own, None)
        for other in ("tcp://cluster:8786", "tcp://127.evil.example:1", "tcp://localhost.x:1"):
            with pytest.raises(ValueError, match=r"is not encrypted.* tls://HOST:PORT, or set"):
                submit(operator.neg, [1], engine=other)
        monkeypatch.setenv(clusters.PLAIN, "1")
        assert clusters.connect("tcp", other, None) == (other, None)

    def test_a_scheduler_with_certificates_is_used(self, tmp_path):
        from distributed import LocalCluster, Security

        proof = Security.temporary()
        settings = {}
        for name, text in proof.get_tls_config_for_role("client").items():
            if name in ("ca_file", "cert", "key"):
                path = tmp_path / f"{name}.pem"
                path.write_text(text)
                place = "ca-file" if name == "ca_file" else f"client.{name}"
                settings[f"distributed.comm.tls.{place}"] = str(path)
        options = {"protocol": "tls://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with (
            LocalCluster(n_workers=1, processes=False, security=proof, **options) as cluster,
            dask.config.set(settings),
        ):
            assert submit(operator.neg, [1, 2], engine=cluster.scheduler_address) == [-1, -2]
            compute.close()


class TestShard:
    def test_shards_partition_the_items(self):
        items = list(range(11))
        parts = [shard(items, f"{i}/4") for i in range(4)]
        assert sorted(itertools.chain(*parts)) == items
        assert parts[1] == [1, 5, 9]

    @pytest.mark.parametrize("which", ["2/2", "1", "a/b", "-1/2", "1/"])
    def test_impossible_shards_are_refused(self, which):
        with pytest.raises(ValueError, match="not of the form I/N"):
            shard([1], which)


class TestRaiseFailures:
    def test_first_failure_and_count_are_told(self):
        with pytest.raises(RuntimeError, match="1 of 2 tasks failed, the first with an unexpected"):
            raise_failures(submit(inverse, [0, 1]))

    def test_whole_results_pass(self):
        assert raise_failures([1, 2]) == [1, 2]


class TestTrainingOnEngines:
    def test_every_engine_gives_the_same_predictions(self, tmp_path, external):
        address, _ = external
        manifest = prepared_set(tmp_path / "data")
        specs = [
            TrainSpec(name, str(manifest), fold=fold, epochs=1, learning_rate=1e-3)
            for name in ("Conv5FC3", "SECNN")
            for fold in (0, 1)
        ]
        written = {}
        for engine in ("inline", "local:2", address):
            run = Run("03_training", "engines", 20, tmp_path / engine.partition(":")[0], quiet=True)
            fitted = functools.partial(counted_fit, runs=str(run.models))
            names = raise_failures(submit(fitted, specs, engine=engine))
            evaluations = [
                Evaluation("test", "synthetic", run.models / name, manifest) for name in names
            ]
            run.save_predictions(evaluate(evaluations, engine=engine))
            written[engine] = (run.folder / "predictions.csv").read_bytes()
        assert len(written["inline"].splitlines()) > 4 * len(specs)
        assert written["inline"] == written["local:2"] == written[address]

    def test_killed_worker_loses_no_run_and_no_epoch(self, tmp_path, external):
        address, workers = external
        manifest = prepared_set(tmp_path / "data")
        specs = [
            TrainSpec("Conv5FC3", str(manifest), fold=0, epochs=4, seed=seed) for seed in range(4)
        ]
        runs = tmp_path / "runs"
        runs.mkdir()
        killed = []

        def kill_one_at_the_first_epoch():
            while not killed:
                log = runs / "log"
                lines = log.read_text().splitlines() if log.exists() else []
                if any("epoch 2/4" in line for line in lines):
                    workers[0].send_signal(signal.SIGKILL)
                    killed.append(True)
                time.sleep(0.02)

        killer = threading.Thread(target=kill_one_at_the_first_epoch)
        killer.start()
        names = submit(functools.partial(counted_fit, runs=str(runs)), specs, engine=address)
        killer.join()
        assert names == [spec.folder(runs).name for spec in specs]
        assert all((runs / name / "DONE").exists() for name in names)
        epochs = [line.split(":")[0] for line in (runs / "log").read_text().splitlines()]
        epochs = [line for line in epochs if " epoch " in line]
        # an epoch that was finished is never trained again; one under way may be, once
        assert 16 <= len(epochs) <= 17
        assert len(set(epochs)) == 16


class TestSlurm:
    def test_job_script_is_the_golden_file(self, tmp_path, monkeypatch):
        pytest.importorskip("dask_jobqueue")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "site.yaml").write_text(PROFILE)
        cluster, workers = slurm_cluster(tmp_path / "site.yaml")
        with cluster:
            script = cluster.job_script()
            script = script.replace(cluster.scheduler_address, "tls://127.0.0.1:PORT")
            proofs = re.findall(r"--tls-\S+ (\S+)", script)
            assert all(Path(proof).parent == tmp_path for proof in proofs)
            assert {Path(proof).stat().st_mode & 0o77 for proof in proofs} == {0}
        script = re.sub(r"(--tls-\S+) \S+", r"\1 FILE", script)
        assert workers == 4
        assert script == JOB_SCRIPT + WORKER + "\n"

    def test_without_a_gpu_a_job_runs_one_worker_a_core(self, tmp_path, monkeypatch):
        pytest.importorskip("dask_jobqueue")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "site.yaml").write_text(PROFILE.replace("gpus: 1", "gpus: 0"))
        cluster, _ = slurm_cluster(tmp_path / "site.yaml")
        with cluster:
            script = cluster.job_script()
        assert "--nthreads 1 " in script
        assert "--nworkers 8 " in script
        assert "gres" not in script

    def test_misspelt_key_is_named(self, tmp_path):
        (tmp_path / "site.yaml").write_text(PROFILE.replace("queue", "partition"))
        with pytest.raises(ValueError, match=r"unknown keys \['partition'\] and lacks \[\]"):
            slurm_cluster(tmp_path / "site.yaml")

    def test_missing_profile_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"site\.yaml is not there"):
            slurm_cluster(tmp_path / "site.yaml")
