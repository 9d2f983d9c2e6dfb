"""One volume comes in; CPU-seconds and memory of fifteen measures, by MRQy and by us, go out.

Both programs are started from the command line on the same file and write one table. MRQy lives
in an interpreter of its own (``python -m venv``, ``pip install mrqy``), named by ``--mrqy``; it is
timed as it is, and once more with the 189 thumbnails it always writes left out, so that both write
the same. Every command runs several times and its cheapest run counts, so that nobody pays for
what is compiled once. Without MRQy, what was recorded on another day and computer stands in, and is
named so.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import write_table
from motionlib.iqms.measures import MEASURES
from motionlib.iqms.tables import image_quality

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"  # in nilearn's wheel
RECORDED = {  # CPU-s of MRQy 0.0.3 on the same volume, on a shared 2-core virtual machine
    "MRQy command line (recorded)": 42.6,
    "MRQy command line, no thumbnails (recorded)": 40.4,
}
STARTER = (  # a child counts its parent's memory until it starts, so the parent must be small
    "import resource, subprocess, sys\n"
    "status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
    "sys.exit(status)\n"
)
WITHOUT_THUMBNAILS = (
    "import runpy, sys, matplotlib.pyplot as plt\n"
    "plt.imsave = lambda *args, **kwargs: None\n"
    "sys.argv = ['QC', *sys.argv[1:]]\n"
    "runpy.run_module('mrqy.QC', run_name='__main__')\n"
)


def rician_head(folder: Path) -> tuple[Path, np.ndarray]:
    """Write MNI152 at 1 mm with Rician noise as float32, 197 x 233 x 189."""
    import nibabel as nib

    image = nib.load(Path(find_spec("nilearn").origin).parent / TEMPLATE)
    clean = np.asanyarray(image.dataobj).astype(float) * 4
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, (2, *clean.shape))
    volume = np.hypot(clean + noise[0], noise[1]).astype(np.float32)
    path = folder / "in" / "rician.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(volume, image.affine), path)
    return path, volume


def cost(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU-seconds and peak memory in MB of a command, from a small process that only starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    starter = [sys.executable, "-c", STARTER, *command]
    done = subprocess.run(starter, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed: {done.stderr[-500:]}")
    spent, memory = done.stdout.split()[-2:]
    return float(spent), float(memory)


def cheapest(command: list[str], folder: Path, out: str, runs: int) -> tuple[float, float]:
    """CPU-seconds of the cheapest run and peak memory in MB of the hungriest.

    ``{out}`` in the command becomes a new name for each run.
    """
    costs = [cost([w.format(out=f"{out}{i}") for w in command], folder) for i in range(runs)]
    return min(seconds for seconds, _ in costs), max(memory for _, memory in costs)


def in_process(volume: np.ndarray, **options) -> float:
    """CPU-seconds of the measures alone, best of three."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        image_quality(volume, **options)
        spent.append(time.process_time() - start)
    return min(spent)


def main() -> None:
    """Time everything and write ``benchmarks/results/iqms.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mrqy", metavar="PYTHON", help="interpreter that has mrqy")
    parser.add_argument("--out", default="benchmarks/results/iqms.csv")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, volume = rician_head(folder)
        ours = [sys.executable, "-m", "motionlib.cli", "iqms", str(path), "--out", "{out}.tsv"]
        exact = cheapest(ours, folder, "exact", 3)
        rows.append(("motionlib command line, exact median", *exact))
        repaired = cheapest([*ours, "--corrected"], folder, "repaired", 3)
        rows.append(("motionlib command line, corrected", *repaired))
        rows.append(("measures alone, exact median", in_process(volume), np.nan))
        rows.append(("measures alone, corrected", in_process(volume, compat=False), np.nan))
        if args.mrqy:
            python = str(Path(args.mrqy).absolute())
            theirs = cheapest([python, "-m", "mrqy.QC", "{out}", "in"], folder, "mrqy", 2)
            rows.append(("MRQy command line", *theirs))
            bare = [python, "-c", WITHOUT_THUMBNAILS, "{out}", "in"]
            rows.append(("MRQy command line, no thumbnails", *cheapest(bare, folder, "bare", 2)))
            compare(folder)
        else:
            rows += [(name, seconds, np.nan) for name, seconds in RECORDED.items()]
    table = pd.DataFrame(rows, columns=["program", "cpu_s", "peak_memory_mb"])
    base = table["program"].str.startswith("MRQy")
    for column, words in (("times_faster", ""), ("times_faster_same_output", "thumbnails")):
        chosen = table[base & (table["program"].str.contains("thumbnails") == bool(words))]
        table[column] = (chosen["cpu_s"].iloc[0] if len(chosen) else np.nan) / table["cpu_s"]
    table["volumes_of_memory"] = table["peak_memory_mb"] / (volume.nbytes / 2**20)
    write_table(table.round(3), args.out)
    print(table.round(2).to_string(index=False))


def compare(folder: Path) -> None:
    """Refuse to time two programs that disagree."""
    found = next(folder.rglob("results.tsv")).read_text().splitlines()
    header = next(line for line in found if line.startswith("#dataset")).lstrip("#")
    names = header.removeprefix("dataset:").split("\t")
    values = dict(zip(names, found[-1].split("\t"), strict=False))
    ours = pd.read_csv(folder / "exact0.tsv", sep="\t").iloc[0]
    shared = [name for name in MEASURES if name in values]
    for name in shared:
        if not np.isclose(float(values[name]), ours[name], rtol=1e-6):
            raise SystemExit(f"{name} is {ours[name]} here and {values[name]} in MRQy")
    print(f"{len(shared)} measures agree with MRQy to 1e-6")


if __name__ == "__main__":
    main()
