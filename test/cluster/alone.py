# SPDX-License-Identifier: Apache-2.0
"""Nodes and etcd on the bed's hosts, each for itself: what all that is said of clusters rests on."""
import os

from bed import why_not
from harness import a_bed, blob, case, check, slow, until

TIERS = ("nvme:@/nvme:64MB",)


@case
def nodes_on_hosts_answer_and_come_back():
    with a_bed("ab", network="bridge") as bed:
        nodes = [bed.start(host, tiers=TIERS) for host in "ab"]
        path = blob(bed, "one", 1 << 20)
        for node in nodes:
            node.weft("put", "--key", "one", "--block-bytes", "256KB", path)
            node.weft("session", "archive", "kept", "--key", "one", "--block-bytes", "256KB", "--blocks", "4")
        check(not bed.listening("a"), "it listens without being told:", bed.listening("a"))
        nodes[0].restart()
        nodes[1].pause()
        copy = os.path.join(bed.folder, "copy")
        nodes[0].weft("get", "--key", "one", "--block-bytes", "256KB", "--blocks", "4", "--output", copy, "--verify")
        with open(path, "rb") as one, open(copy, "rb") as other:
            check(one.read() == other.read(), "other bytes after a restart")
        nodes[1].weft("status", expect=3, timeout=30)
        nodes[1].resume()
        nodes[1].until("answers", ["status"], lambda status: status["pool"]["bytes"] > 0)
        nodes[1].stop()


@slow
def etcd_is_real_and_dies_and_comes_back():
    missing = why_not(etcd=True)
    if missing:
        return missing
    with a_bed("ab", etcd=True) as bed:
        def ask(host, path, body):
            return bed.http(host, bed.etcd.address, "POST", path, body, timeout=2)
        ask("a", "/v3/kv/put", {"key": "aw==", "value": "dg=="})
        check(ask("b", "/v3/kv/range", {"key": "aw=="})["kvs"][0]["value"] == "dg==", "not what was put")
        bed.wire("cut b<>etcd")
        try:
            check(not ask("b", "/v3/kv/range", {"key": "aw=="}), "through a partition")
        except OSError:
            pass
        bed.wire("heal b<>etcd")
        bed.etcd.kill()
        bed.etcd.start()
        until("it kept it", lambda: ask("b", "/v3/kv/range", {"key": "aw=="})["kvs"][0]["value"] == "dg==")
    return None
