"""What stands between a user and a good sweep: this machine, the cluster's nodes and the database, each with advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import caviar
from caviar.bootstrap import cluster_address, inspect_cluster, storage_url
from caviar.errors import CaviarError, ExecutorError, StorageMissing
from caviar.execution.facts import DECIDE_BITS, ClusterFacts, Facts, NodeFacts, collect_facts
from caviar.storage.probe import DatabaseFacts, probe
from caviar.wording import counted

#: A clock that is further off makes times in the database misleading, and leases of SQLite files unsafe.
_CLOCK_S = 1.0
#: Each result waits for it twice or so; below, nobody notices.
_LATENCY_S = 0.1
#: What one worker needs, with the libraries it loads.
_MEMORY_GB = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    #: `here`, `cluster`, `node HOST` or `database`.
    subject: str
    #: A `note` may matter, a `problem` does.
    level: Literal["ok", "note", "problem"]
    text: str
    #: What to do about it.
    advice: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """All that was found."""

    here: Facts
    cluster: ClusterFacts | None = None
    database: DatabaseFacts | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether there is no problem."""
        return all(finding.level != "problem" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {"ok": self.is_well, "caviar": caviar.__version__, **asdict(self)}


def diagnose(address: str | None = None, url: str | None = None) -> Diagnosis:
    """Look at everything that a sweep with this address and this storage would use."""
    found = Diagnosis(here=collect_facts())
    _look_here(found)
    _look_at_cluster(found, cluster_address(address))
    _look_at_database(found, storage_url(url))
    return found


def _look_here(found: Diagnosis) -> None:
    here = found.here
    found.findings.append(
        Finding(
            "here",
            "ok",
            f"caviar {caviar.__version__}, Python {here.python}, {counted(here.n_cores, 'core')}, {here.processor}",
        )
    )
    if here.packages["numba"] is None:
        found.findings.append(
            Finding("here", "note", "no Numba: new studies use the slower NumPy kernel", "pip install numba")
        )


def _look_at_cluster(found: Diagnosis, address: str | None) -> None:
    tell = found.findings.append
    try:
        cluster = inspect_cluster(address)
    except ExecutorError as error:
        tell(Finding("cluster", "problem", str(error)))
        return
    found.cluster = cluster
    where = f"at {address}" if address else "of this machine alone, started for this look"
    n_cores = sum(node.n_cores for node in cluster.nodes)
    tell(Finding("cluster", "ok", f"a Ray cluster {where}: {counted(len(cluster.nodes), 'node')}"))
    if not n_cores:
        advice = f"python -m workers --address {address}, on each machine that is to train"
        tell(Finding("cluster", "problem", "no node has a core to train on", advice))
    if not cluster.wants_token:
        advice = "start it with RAY_AUTH_MODE=token, as `python -m workers --head` does"
        tell(Finding("cluster", "problem", "whoever reaches its ports can run any program on all nodes", advice))
    for node in cluster.nodes:
        found.findings += _judge_node(node, found.here)
    processors = {node.facts.processor for node in cluster.nodes if node.facts is not None and node.n_cores}
    if len(processors) > 1:
        kinds = f"{len(processors)} kinds of processors ({', '.join(sorted(processors))})"
        text = f"{kinds}, on which the NumPy kernel rounds the last bits differently"
        tell(Finding("cluster", "note", text, "use the compiled kernel, which gives the same bits on all"))


def _judge_node(node: NodeFacts, here: Facts) -> list[Finding]:
    name = f"node {node.host}"
    facts = node.facts
    if facts is None:
        return [Finding(name, "problem", node.error or "it did not answer", f"look at Ray's logs on {node.host}")]
    # where the node cannot train, nobody could count them
    threads = f"{counted(facts.blas_threads, 'BLAS thread')} for each worker, " if facts.blas_threads else ""
    text = (
        f"{'head, ' if node.is_head else ''}{facts.hostname}: Ray {node.ray}, Python {facts.python}, "
        f"{counted(node.n_cores, 'core')}, {threads}{node.memory_gb:.1f} GB of memory for Ray"
    )
    found = [Finding(name, "ok", text)]

    def tell(level: Literal["note", "problem"], text: str, advice: str) -> None:
        found.append(Finding(name, level, text, advice))

    if facts.error is not None:
        tell("problem", f"it cannot train: {facts.error}", f"{facts.executable} -m pip install caviar, on {node.host}")
        return found
    for package in DECIDE_BITS:
        there, ours = facts.packages[package], here.packages[package]
        if there != ours:
            wanted = f"{package}=={ours}" if ours else f"(uninstall {package})"
            text = f"{package} {there or 'is missing'}, here {ours or 'none'}: results can differ in the last bits"
            tell("problem", text, f"{facts.executable} -m pip install {wanted}, on {node.host}")
    if facts.caviar != here.caviar:
        text = f"caviar {facts.caviar or 'is not installed'}, here {here.caviar}"
        tell("note", text, "nothing: the nodes run the code of the process that sweeps")
    if facts.blas_threads != 1:
        text = f"the BLAS of a worker uses {facts.blas_threads} threads ({facts.blas}), so that workers slow each other"
        tell("problem", text, "start the node without OMP_NUM_THREADS and its like, or set them to 1")
    if node.n_cores and node.memory_gb / node.n_cores < _MEMORY_GB:
        text = f"{node.memory_gb / node.n_cores:.2f} GB of memory for each core, of which a worker needs {_MEMORY_GB}"
        tell("problem", text, "join the machine with fewer cores: python -m workers --cores N ...")
    if abs(node.clock_ahead) > _CLOCK_S + node.clock_error:
        ahead = "ahead of" if node.clock_ahead > 0 else "behind"
        tell("problem", f"its clock is {abs(node.clock_ahead):.1f} s {ahead} this one", "let NTP set both clocks")
    return found


def _look_at_database(found: Diagnosis, url: str) -> None:
    tell = found.findings.append
    try:
        database = probe(url)
    except StorageMissing as error:
        tell(Finding("database", "note", str(error)))
        return
    except CaviarError as error:
        tell(Finding("database", "problem", str(error)))
        return
    found.database = database
    tell(Finding("database", "ok", f"{database.url}: {database.version}, answers in {1e3 * database.latency_s:.1f} ms"))
    if database.latency_s > _LATENCY_S:
        text = f"it takes {1e3 * database.latency_s:.0f} ms to answer"
        tell(Finding("database", "note", text, "sweep from a machine that is nearer to it"))
    if abs(database.clock_ahead) > _CLOCK_S + database.latency_s:
        ahead = "ahead of" if database.clock_ahead > 0 else "behind"
        text = f"its clock is {abs(database.clock_ahead):.1f} s {ahead} this one"
        tell(Finding("database", "problem", text, "let NTP set both clocks"))
