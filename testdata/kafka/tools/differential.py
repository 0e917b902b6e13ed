#!/usr/bin/env python3
"""Random play scripts through Apache Kafka's own storage classes and through oncelog, answers compared.

usage: differential.py --oncelog PROGRAM --seeds A..B [--ops N] [--device NAME]... [--minimise N] [--out DIR]

Seeds A to B-1, one script each (gen.py). Kafka answers all of them in one process for each core (../oracle), oncelog once
for each script and device (blocking and memory unless others are named). For each script that differs beyond the rules of
compare.py: the seed, the first answer that differs, both answers. With --minimise also, for N seeds of each kind of
difference, the shortest script that still differs in the same way (minimise.py); with --out they are kept there together
with both answers.
Exit 0: no difference. 1: differences. 2: could not run.
"""
import argparse
import collections
import concurrent.futures
import copy
import json
import os
import re
import subprocess
import sys
import tempfile

import compare
import gen

TOOLS = os.path.dirname(os.path.abspath(__file__))
ORACLE = os.path.join(TOOLS, "..", "oracle", "play-oracle")
SCRIPTS_OF_A_PROCESS = 400


class Finding(collections.namedtuple("Finding", "line kind text")):
    """The first answer beyond the rules: its line from 1, what differs without the values, and with them."""


class Runner:
    def __init__(self, oncelog, devices, jobs):
        self.oncelog, self.devices, self.jobs = oncelog, devices, jobs
        self.rules = collections.Counter()

    def check(self, scripts):
        """For each script the first difference of any device, or None."""
        with tempfile.TemporaryDirectory() as root:
            names = []
            for i, script in enumerate(scripts):
                names.append(os.path.join(root, f"{i}.jsonl"))
                write(names[-1], script)
            kafka = [name + ".kafka" for name in names]
            with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
                share = max(1, min(SCRIPTS_OF_A_PROCESS, -(-len(names) // self.jobs)))
                pairs = list(zip(names, kafka))
                asked = [pool.submit(ask_kafka, pairs[i:i + share]) for i in range(0, len(pairs), share)]
                [a.result() for a in asked]
                ours = {d: list(pool.map(lambda name: self.play(d, name), names)) for d in self.devices}
            found = []
            for i, script in enumerate(scripts):
                differences = (self.difference(script, kafka[i], ours[d][i], d) for d in self.devices)
                found.append(next((f for f in differences if f), None))
            return found

    def play(self, device, name):
        out = f"{name}.{device}"
        with open(out, "w") as answers:
            ran = subprocess.run([self.oncelog, "play", "--device", device, name], stdout=answers, stderr=subprocess.PIPE, text=True)
        if ran.returncode:
            with open(out, "a") as answers:
                answers.write(json.dumps({"error": "EXIT", "message": ran.stderr[-1500:], "code": ran.returncode}) + "\n")
        return out

    def difference(self, script, kafka, ours, device):
        line, text, used = compare.first_difference(script, read(kafka), read(ours))
        self.rules.update(used)
        return Finding(line, kind(script[line - 1]["op"], text), f"{device}: {text}") if line else None

    def answers(self, script):
        """Both answers to one script, of Kafka and of the first device."""
        with tempfile.TemporaryDirectory() as root:
            name = os.path.join(root, "script.jsonl")
            write(name, script)
            ask_kafka([(name, name + ".kafka")])
            return read(name + ".kafka"), read(self.play(self.devices[0], name))


def ask_kafka(pairs):
    names = [name for pair in pairs for name in pair]
    ran = subprocess.run([ORACLE, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        raise RuntimeError(f"play-oracle: exit {ran.returncode}: {ran.stderr[-1500:]}")


def kind(op, text):
    """What differs, without numbers: two findings of one kind are probably one."""
    first = text.split("\n")[0].split(": ", 1)[-1]
    return op + ": " + re.sub(r"[\[{(].*|-?\d+", "", first)[:80].strip()


def read(name):
    with open(name) as lines:
        return [json.loads(line) for line in lines if line.strip()]


def write(name, lines):
    with open(name, "w") as out:
        out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def scripts_of(seeds, ops, plain):
    scripts = [gen.Gen(seed, ops).script() for seed in seeds]
    return [[uncompressed(op) for op in script] for script in scripts] if plain else scripts


def uncompressed(op):
    op = {**op}
    if "config" in op:
        op["config"] = {k: v for k, v in op["config"].items() if k != "compression_type"}
    if "batches" in op:
        op["batches"] = [{k: v for k, v in b.items() if k != "compression"} for b in op["batches"]]
    return op


def keep(out, name, script, runner, finding):
    directory = os.path.join(out, name)
    os.makedirs(directory, exist_ok=True)
    kafka, ours = runner.answers(script)
    for file, lines in (("script", script), ("kafka", kafka), ("ours", ours)):
        write(os.path.join(directory, file + ".jsonl"), lines)
    with open(os.path.join(directory, "finding.txt"), "w") as text:
        text.write(f"{finding.kind}\n{finding.text}\n")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--oncelog", required=True)
    arguments.add_argument("--seeds", required=True)
    arguments.add_argument("--ops", type=int, default=200)
    arguments.add_argument("--device", action="append")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--out")
    arguments.add_argument("--plain", action="store_true", help="without compression")
    arguments.add_argument("--minimise", type=int, default=0)
    o = arguments.parse_args()
    seeds = range(*map(int, o.seeds.split("..")))
    runner = Runner(o.oncelog, o.device or ["blocking", "memory"], o.jobs)
    scripts = scripts_of(seeds, o.ops, o.plain)
    findings = runner.check(scripts)
    rules = copy.copy(runner.rules)
    differing = [i for i, finding in enumerate(findings) if finding]
    for i in differing:
        print(f"seed {seeds[i]}: {findings[i].text}")
    kinds = collections.defaultdict(list)
    for i in differing:
        kinds[findings[i].kind].append(i)
    chosen = sorted(i for same in kinds.values() for i in same[:o.minimise])
    if chosen:
        import minimise
        for i, (script, finding) in zip(chosen, minimise.minimise(runner, [(scripts[i], findings[i]) for i in chosen])):
            print(f"seed {seeds[i]} in {len(script)} operations: {finding.text}")
            if o.out:
                keep(o.out, f"seed-{seeds[i]}", script, runner, finding)
    for kind_of, same in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
        print(f"{len(same):5} {kind_of}")
    print("rules used: " + ", ".join(f"{k} {v}" for k, v in sorted(rules.items())))
    print(f"{len(seeds)} scripts of {o.ops} operations on {', '.join(runner.devices)}: {len(differing)} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
