# SPDX-License-Identifier: Apache-2.0
"""KV events between weftd and vLLM's own publisher, event classes and connector, in both directions."""
import os
import time
import unittest

import vllm

if getattr(vllm, "WEFT_FAKE", False):
    raise unittest.SkipTest("the fake publishes no events")

import msgspec
import test_connector
import zmq
from node import Node
from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, KVEventBatch, ZmqEventPublisher
from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

import weft.vllm

TOKENS = test_connector.TOKENS
MODEL = "tiny"  # of test_connector's configuration


def stored(hashes, tokens, parent=None, medium="GPU", **more):
    return BlockStored(block_hashes=[maybe_convert_block_hash(each) for each in hashes], token_ids=list(tokens),
                       parent_block_hash=maybe_convert_block_hash(parent) if parent else None, block_size=TOKENS,
                       lora_id=None, medium=medium, lora_name=None, **more)


class Case(unittest.TestCase):
    """A node that hears one engine and publishes itself."""

    def setUp(self):
        self.node = Node()  # for its folder: what it is configured with lies there
        self.addCleanup(self.node.close)
        self.node.kill()
        self.engine, self.replay = f"ipc://{self.node.folder}/engine", f"ipc://{self.node.folder}/replay"
        settings = os.path.join(self.node.folder, "weftd.yaml")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f"kv_events:\n  listen: 127.0.0.1:0\n  replay: 127.0.0.1:0\n  engines:\n    - name: vllm0\n"
                       f"      endpoint: {self.engine}\n      replay: {self.replay}\n      model: {MODEL}\n")
        self.node.environment["WEFT_CONFIG"] = settings
        self.node.start()
        self.fabric = self.node.connect()
        self.addCleanup(self.fabric.close)

    def publisher(self):
        made = ZmqEventPublisher(0, endpoint=self.engine, replay_endpoint=self.replay, buffer_steps=100)
        self.addCleanup(lambda: made._running and made.shutdown())
        self.until(lambda row: row["state"] == "live")
        return made

    def row(self):
        return self.fabric.query("engines")["engines"][0]

    def until(self, good):
        until = time.monotonic() + 20
        while not good(self.row()):
            self.assertLess(time.monotonic(), until, self.row())
            time.sleep(0.01)
        return self.row()

    @staticmethod
    def publish(publisher, *events):
        publisher.publish(KVEventBatch(ts=time.time(), events=list(events)))


class In(Case):
    def test_what_the_publisher_says_is_known(self):
        publisher, hashes = self.publisher(), list(weft.vllm.block_hashes(range(64), TOKENS))
        self.publish(publisher, stored(hashes, range(64)), stored(hashes[:1], range(16), medium="CPU", group_idx=1))
        row = self.until(lambda row: row["batches"] == 1)
        self.assertEqual((row["blocks"], row["hbm_blocks"], row["stored"]), (4, 4, 5))
        self.publish(publisher, BlockRemoved(block_hashes=[maybe_convert_block_hash(h) for h in hashes[2:]], medium="GPU"))
        row = self.until(lambda row: row["batches"] == 2)
        self.assertEqual((row["blocks"], row["hbm_blocks"]), (2, 2))
        self.publish(publisher, AllBlocksCleared())
        self.assertEqual(self.until(lambda row: row["batches"] == 3)["blocks"], 0)
        self.assertEqual(self.row()["gaps"] + self.row()["refused"] + self.row()["forgotten"], 0)

    def test_a_gap_is_replayed(self):
        publisher, hashes = self.publisher(), list(weft.vllm.block_hashes(range(96), TOKENS))
        self.publish(publisher, stored(hashes[:1], range(16)))
        self.until(lambda row: row["batches"] == 1)
        send, lost = publisher._pub.send_multipart, [1, 2]

        class Losing:
            def __getattr__(self, name):
                return getattr(pub, name)

            def send_multipart(self, frames):
                if int.from_bytes(frames[1], "big") not in lost:
                    send(frames)

        pub, publisher._pub = publisher._pub, Losing()
        for i in range(1, 5):
            self.publish(publisher, stored(hashes[i:i + 1], range(16 * i, 16 * i + 16), hashes[i - 1]))
        row = self.until(lambda row: row["hbm_blocks"] == 5 and row["state"] == "live")
        self.assertEqual((row["gaps"], row["missed"], row["forgotten"]), (1, 2, 0))

    def test_what_it_published_before(self):
        early = ZmqEventPublisher(0, endpoint=self.engine + "-early", replay_endpoint=self.replay, buffer_steps=100)
        hashes = list(weft.vllm.block_hashes(range(64), TOKENS))
        try:
            self.publish(early, stored(hashes, range(64)))
            until = time.monotonic() + 20
            while not early._buffer:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
            early._pub.bind(self.engine)
            self.assertEqual(self.until(lambda row: row["state"] == "live" and row["replayed"])["hbm_blocks"], 4)
        finally:
            early.shutdown()

    def test_a_new_life_begins_with_nothing(self):
        first, hashes = self.publisher(), list(weft.vllm.block_hashes(range(64), TOKENS))
        self.publish(first, stored(hashes, range(64)))
        self.until(lambda row: row["hbm_blocks"] == 4)
        first.shutdown()
        self.assertEqual(self.until(lambda row: row["state"] == "away")["blocks"], 0)
        second = self.publisher()
        self.publish(second, stored(hashes[:1], range(16)))
        row = self.until(lambda row: row["hbm_blocks"] == 1)
        self.assertEqual((row["connections"], row["gaps"]), (2, 0))

    def test_nonsense_harms_nobody(self):
        publisher, hashes = self.publisher(), list(weft.vllm.block_hashes(range(16), TOKENS))
        for frames in ([b""], [b"", b"1", b"x"], [b"", bytes(8), b"\xc1" * 100, b"more"], [b"x"] * 50):
            publisher._pub.send_multipart(frames)
        self.assertEqual(self.until(lambda row: row["refused"] == 4)["state"], "live")
        self.publish(publisher, stored(hashes, range(16)))
        self.until(lambda row: row["hbm_blocks"] == 1)


class Out(Case):
    def subscribe(self):
        socket = zmq.Context.instance().socket(zmq.SUB)
        self.addCleanup(socket.close, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.setsockopt(zmq.RCVTIMEO, 20000)
        socket.connect(f"tcp://127.0.0.1:{self.figures()['port']}")
        until = time.monotonic() + 20
        while not self.figures()["subscriptions"]:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)
        return socket

    def figures(self):
        return self.fabric.query("status")["kv_events"]

    def hear(self, socket, blocks):
        """Events as vLLM's own classes read them, until so many blocks were stored."""
        decoder, events, count = msgspec.msgpack.Decoder(KVEventBatch), [], 0
        while count < blocks:
            _, _, data = socket.recv_multipart()
            more = decoder.decode(data).events
            events += more
            count += sum(len(event.block_hashes) for event in more if isinstance(event, BlockStored))
        return [event for event in events if isinstance(event, BlockStored)]

    def test_the_connectors_blocks_are_told_of_whole(self):
        socket, engine = self.subscribe(), test_connector.Engine(self)
        made = test_connector.request(range(100, 149))
        engine.prefill(made, [3, 7, 1, 9], 1.0)
        events = self.hear(socket, 3)
        self.assertEqual([each for event in events for each in event.block_hashes],
                         [maybe_convert_block_hash(each) for each in made.block_hashes[:3]])
        self.assertEqual([token for event in events for token in event.token_ids], list(range(100, 148)))
        self.assertEqual((events[0].parent_block_hash, events[0].block_size, events[0].medium), (None, TOKENS, "CPU"))
        self.assertEqual(self.figures()["held"], 0)

    def test_salted_ones_are_held_back(self):
        engine = test_connector.Engine(self)
        salted = test_connector.request(range(100, 149), salt="s")
        engine.prefill(salted, [3, 7, 1, 9], 1.0)
        self.assertEqual((self.figures()["described"], self.figures()["held"]), (3, 3))
        # Nor do the engine's own events make them whole: they say that a salt is in the first's hash.
        publisher = self.publisher()
        self.publish(publisher, stored(salted.block_hashes[:3], range(100, 148), extra_keys=[("s",), None, None]))
        self.until(lambda row: row["hbm_blocks"] == 3)
        time.sleep(0.5)  # several looks of the node's
        self.assertEqual((self.figures()["held"], self.figures()["filled"]), (3, 0))

    def test_an_engine_of_the_model_has_the_connectors_blocks(self):
        publisher, engine = self.publisher(), test_connector.Engine(self)
        made = test_connector.request(range(100, 149))
        engine.prefill(made, [3, 7, 1, 9], 1.0)
        self.publish(publisher, stored(made.block_hashes[:2], range(100, 132)))
        self.until(lambda row: row["hbm_blocks"] == 2)
        keys = [block["key"] for block in sorted(self.fabric.query("blocks")["blocks"], key=lambda block: block["depth"])]
        media = [self.fabric.query(f"engines key={key}")["engines"] for key in keys]
        self.assertEqual([[row["media"] for row in rows] for rows in media], [[["GPU"]], [["GPU"]], []])


if __name__ == "__main__":
    unittest.main()
