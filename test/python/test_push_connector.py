# SPDX-License-Identifier: Apache-2.0
"""The worker's half of the vLLM connector with `hand_over`: a step's hooks in vLLM's order, pages of bytes instead of
tensors, and two real nodes."""
import sys
import types
import unittest
from unittest import mock

from test_push import Push

PAGE, LAYERS, TABLE = 8192, ("l0", "l1", "l2"), [7, 3, 9, 4]


def stand_ins():
    """As much of torch and vLLM as the module names when it is imported."""
    base = types.ModuleType("vllm.distributed.kv_transfer.kv_connector.v1.base")
    base.KVConnectorBase_V1 = base.KVConnectorMetadata = object
    base.KVConnectorRole = types.SimpleNamespace(SCHEDULER=0, WORKER=1)
    made, name = {base.__name__: base, "torch": types.ModuleType("torch")}, base.__name__
    while "." in name:
        name = name.rpartition(".")[0]
        made[name] = types.ModuleType(name)
    return made


class Pages:
    """What a gather of one layer answers: a row of bytes a block."""

    def __init__(self, rows):
        self.rows = [types.SimpleNamespace(data=memoryview(row)) for row in rows]

    def numpy(self):
        return self.rows


class Connector(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        Push.setUpClass.__func__(cls)
        with mock.patch.dict(sys.modules, stand_ins()):
            sys.modules.pop("weft.connectors.vllm", None)
            from weft.connectors import vllm
            cls.ours = vllm
        sys.modules.pop("weft.connectors.vllm", None)
        cls.spec = {"model": "pages@1", "layers": len(LAYERS), "kv_heads": 1, "head_dim": 1, "dtype": "int8",
                    "block_bytes": PAGE * len(LAYERS)}
        cls.here, cls.there = cls.left.format(**cls.spec), cls.right.format(**cls.spec)

    until, figure, in_memory = staticmethod(Push.until), Push.figure, Push.in_memory

    def connector(self, node="right"):
        """A connector without a vLLM around it, and its worker's half."""
        made = self.ours.WeftConnector.__new__(self.ours.WeftConnector)
        made.hand_over, made._fabric, made.threads, made._warned = node, self.left, 1, set()
        shape = types.SimpleNamespace(page=PAGE, names=list(LAYERS))
        worker = made._half = self.ours._Worker(made, self.here, shape, "HNC", {})
        self.addCleanup(worker.close)
        worker._indices = list
        worker._layers = [(layer, 0) for layer in range(len(LAYERS))]
        worker._gather = lambda layer, dim, blocks: Pages([self.page(layer, block) for block in blocks])
        return made

    def page(self, layer, block):
        return bytes([self.values[block] + layer]) * PAGE if layer <= self.computed else b"\xff" * PAGE

    def step(self, made, saves, hooks=LAYERS):
        self.computed, self.values = -1, {block: 16 * i for i, block in enumerate(TABLE)}
        made._get_connector_metadata = lambda: types.SimpleNamespace(loads=[], saves=saves)
        made.start_load_kv(None)
        for layer, name in enumerate(LAYERS):
            self.computed = layer
            if name in hooks:
                made.save_kv_layer(name, None, None)
        made.wait_for_save()

    def check(self, names):
        keys = self.there.keys_from_bytes(names)
        self.until(lambda: self.in_memory(keys))
        for i, key in enumerate(keys):
            with self.there.pin(key) as pins:
                found = bytearray(PAGE * len(LAYERS))
                pins.read_into(0, found)
                self.assertEqual(bytes(found), b"".join(bytes([16 * i + layer]) * PAGE for layer in range(len(LAYERS))))

    def transfer(self, name):
        names = [f"{name} {i}".encode() for i in range(len(TABLE))]
        return self.ours.Transfer("r", list(TABLE), names)

    def test_layers_go_as_they_are_computed(self):
        transfer, taken, sent = self.transfer("hooks"), self.figure("taken"), []
        made = self.connector()
        write = made._half._write_layer

        def spy():
            sent.append(self.computed)
            write()
        made._half._write_layer = spy
        self.step(made, [transfer])
        self.assertEqual(sent, [0, 1, 2])  # each in its own hook
        self.check(transfer.names)
        self.until(lambda: self.figure("taken") == taken + len(TABLE))
        self.assertEqual(made._warned, set())

    def test_without_hooks_all_goes_at_the_end(self):
        transfer = self.transfer("no hooks")
        self.step(self.connector(), [transfer], hooks=())
        self.check(transfer.names)

    def test_what_is_here_is_handed_over(self):
        transfer = self.transfer("here already")
        self.step(self.connector(node=None), [transfer])
        self.assertEqual(self.here.match(self.here.keys_from_bytes(transfer.names)), len(TABLE))
        self.step(self.connector(), [transfer])
        self.check(transfer.names)

    def test_a_node_that_is_not_there_costs_a_warning(self):
        transfer, made = self.transfer("to nobody"), self.connector(node="nobody")
        with self.assertLogs("vllm.weft", "WARNING"):
            self.step(made, [transfer])
        self.assertEqual(self.here.match(self.here.keys_from_bytes(transfer.names)), len(TABLE))

    def test_more_than_one_push_takes_is_saved_and_handed_over(self):
        transfer = self.transfer("rest")
        with mock.patch.object(self.ours, "PUSHED_MAX", 3):
            self.step(self.connector(), [transfer])
        self.check(transfer.names)
