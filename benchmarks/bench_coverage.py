"""How often the 95 % intervals of simulated studies hold the truth, by design of the study."""

import argparse
import time

import pandas as pd

from motionlib.files import write_table
from motionlib.stats.interval_coverage import StudyDesign, coverage

DESIGNS = {  # patients, prevalence: our demo, the paper's severe and mild sets, many scans of few
    "demo": StudyDesign(n_patients=100, prevalence=0.3),
    "severe": StudyDesign(n_patients=255, prevalence=0.15),
    "mild": StudyDesign(n_patients=215, prevalence=0.36, apart=(0.6, 0.4)),
    "10 x 10": StudyDesign(n_patients=10, n_scans=10, prevalence=0.3),
}


def main() -> None:
    """Simulate, count and write ``benchmarks/results/coverage.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--engine", default="inline")
    parser.add_argument("--out", default="benchmarks/results/coverage.csv")
    args = parser.parse_args()
    parts = []
    for name, design in DESIGNS.items():
        start = time.process_time()
        table = coverage(design, args.studies, engine=args.engine)
        table.insert(0, "design", name)
        parts.append(table.assign(n_patients=design.n_patients, prevalence=design.prevalence))
        print(f"{name}: {time.process_time() - start:.1f} CPU-s", flush=True)
    table = pd.concat(parts, ignore_index=True).round(4)
    write_table(table, args.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
