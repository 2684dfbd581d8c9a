# SPDX-License-Identifier: Apache-2.0
"""weft.llamacpp_proxy in front of a fake llama-server, which can lie; test_server.py has the real one."""
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

from node import Case, Node

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake"))
from fake_server import FakeLlamaServer  # noqa: E402

from weft.llamacpp_proxy import Proxy, file_tokens, serve  # noqa: E402

LONG = "Once upon a time there was a loom that wove what it was told. " * 12


def post(url, body, path="/v1/chat/completions"):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


class Fakes(Case):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="weft-slots-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.model = os.path.join(self.folder, "model.gguf")
        self.write(self.model, self.id())

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def both(self, args="-c 4096", fabric=None, before=None, **how):
        fake = FakeLlamaServer(self.folder, self.model, **how)
        self.addCleanup(fake.close)
        if before:
            before(fake)
        proxy = Proxy(fake.url, self.folder, fabric or self.fabric, args)
        server = serve(proxy, port=0)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def close():
            server.shutdown()
            server.server_close()
            thread.join()
        self.addCleanup(close)
        return fake, proxy, f"http://127.0.0.1:{server.server_address[1]}"

    def chat(self, both, text, **more):
        """The answer, and how many tokens the server computed; returns when the slot was saved."""
        fake, proxy, url = both
        before = fake.computed
        answer = json.loads(post(url, {"messages": [{"role": "user", "content": text}], **more}))
        self.rest(proxy)
        self.assertEqual(fake.wrong, 0)
        return answer["content"], fake.computed - before

    def rest(self, proxy):
        until = time.monotonic() + 30
        while any(slot.busy for slot in proxy.slots):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.005)

    def test_another_server_finds_it(self):
        """llama.cpp#17107, #24004: slots outlive the server."""
        for packed in (True, False):
            with self.subTest(packed=packed):
                self.write(self.model, self.id() + str(packed))
                one = self.both(packed=packed)
                answer, computed = self.chat(one, LONG)
                self.assertGreater(computed, len(LONG))
                again = self.both(packed=packed)
                self.assertEqual(self.chat(again, LONG), (answer, 0))
                self.assertEqual(again[1].counts["restored"], 1)
                _, computed = self.chat(self.both(packed=packed), LONG[:400] + "Then it stopped. " * 5)
                self.assertLess(computed, 64 + 17 * 5 + 20)
        self.assertEqual(os.listdir(self.folder), ["model.gguf"])  # no file is left behind

    def test_a_conversation_stays_in_its_slot(self):
        both = self.both()
        answer, _ = self.chat(both, LONG)
        _, computed = self.chat(both, LONG + "<|assistant|>" + answer + " and more")
        self.assertLess(computed, 40)
        self.assertEqual(both[1].counts["restored"], 0)

    def test_what_is_a_miss(self):
        whole = self.chat(self.both(), LONG)[1]
        self.assertEqual(self.chat(self.both(args="-c 4096 -ctk q8_0"), LONG)[1], whole)
        adapter = os.path.join(self.folder, "lora.gguf")
        self.write(adapter, "lora")
        told = [{"id": 0, "path": adapter, "scale": 1.0}]
        self.assertEqual(self.chat(self.both(before=lambda fake: fake.adapters.extend(told)), LONG)[1], whole)
        self.write(self.model, "other weights under the same name")
        self.assertEqual(self.chat(self.both(), LONG)[1], whole)
        self.assertEqual(self.chat(self.both(), LONG)[1], 0)

    # ------------------------------------------------------------------------------------ adapters

    def lora(self, content="lora"):
        """both(before=) that has one adapter."""
        path = os.path.join(self.folder, "lora.gguf")
        self.write(path, content)
        return lambda fake: fake.adapters.append({"id": 0, "path": path, "scale": 1.0})

    def right(self, both, text=LONG):
        """It answers what a server without any cache does; how many tokens it computed."""
        answer, computed = self.chat(both, text)
        self.assertEqual(answer, both[0].cold(FakeLlamaServer.template([{"role": "user", "content": text}])))
        return computed

    def test_other_weights_of_an_adapter(self):
        whole = self.right(self.both(before=self.lora()))
        self.assertEqual(self.right(self.both(before=self.lora("others under the same name"))), whole)
        self.assertEqual(self.right(self.both(before=self.lora())), 0)

    def test_adapters_that_change(self):
        both = self.both(before=self.lora())
        whole = self.right(both)
        for scale, where in ((0.0, both[2]), (0.25, both[0].url)):  # through the proxy, and behind its back
            post(where, [{"id": 0, "scale": scale}], "/lora-adapters")
            self.assertEqual(self.right(both), whole)
        post(both[2], [{"id": 0, "scale": 1.0}], "/lora-adapters")
        self.assertEqual(self.right(both), 0)

    def test_adapters_that_change_and_change_back(self):
        """Between two requests that the proxy keeps."""
        both = self.both(before=self.lora())
        self.right(both)
        prompt = FakeLlamaServer.template([{"role": "user", "content": LONG.upper()}])
        post(both[2], [{"id": 0, "scale": 0.5}], "/lora-adapters")
        for number in range(2):
            post(both[2], {"prompt": prompt, "id_slot": number}, "/completion")
        post(both[2], [{"id": 0, "scale": 1.0}], "/lora-adapters")
        self.right(both, LONG.upper())

    def test_adapters_that_change_within_a_request(self):
        both = self.both(before=self.lora())
        both[0].before = lambda number: both[0].adapters[0].update(scale=0.5)
        self.right(both)
        both[0].before = lambda number: None
        both[0].adapters[0]["scale"] = 1.0
        self.right(both)
        self.right(self.both(before=self.lora()))

    def test_adapters_of_one_request(self):
        both = self.both(before=self.lora())
        for number in range(2):
            post(both[2], {"prompt": FakeLlamaServer.template([{"role": "user", "content": LONG}]), "id_slot": number,
                           "lora": [{"id": 0, "scale": 0.0}]}, "/completion")
        self.right(both)
        self.right(self.both(before=self.lora()))

    def test_adapters_of_a_request_that_takes_the_slot(self):
        """Before it is saved."""
        both, other = self.both(before=self.lora()), LONG.upper()

        def take(number):
            both[0].after = lambda number: None
            post(both[2], {"prompt": FakeLlamaServer.template([{"role": "user", "content": other}]), "id_slot": number,
                           "lora": [{"id": 0, "scale": 0.0}]}, "/completion")
        both[0].after = take
        self.right(both)
        for text in (other, LONG):
            self.right(both, text)
            self.right(self.both(before=self.lora()), text)

    # ------------------------------------------------------------------------------ what is not there

    def test_a_restore_that_does_nothing(self):
        """llama.cpp#26676."""
        answer, whole = self.chat(self.both(), LONG)
        for lie in ("nothing", "refuse"):
            both = self.both()
            both[0].lie = lie
            self.assertEqual(self.chat(both, LONG), (answer, whole))
            self.assertEqual((both[1].counts["restored"], both[1].counts["refused"]), (0, 1))

    def test_a_file_that_is_gone(self):
        one = self.both()
        answer, whole = self.chat(one, LONG)
        store = one[1].store
        tokens = list(FakeLlamaServer.template([{"role": "user", "content": LONG}]).encode())
        with store.markers.pin(store.markers.keys(tokens)[0]) as pins:
            marker = bytes(pins[0])
        for key in store._names(marker[8:40], 1 << 20):
            store.pieces.remove(key)
        self.assertEqual(self.chat(self.both(), LONG), (answer, whole))
        self.assertEqual(self.chat(self.both(), LONG), (answer, 0))  # and was put anew

    def test_a_file_of_other_tokens(self):
        both = self.both()
        answer, whole = self.chat(both, LONG)
        store = both[1].store
        text = FakeLlamaServer.template([{"role": "user", "content": LONG.upper()}])
        with store.markers.pin(store.markers.keys(list(FakeLlamaServer.template(
                [{"role": "user", "content": LONG}]).encode()))[0]) as pins:
            marker = bytes(pins[0])
        keys = store.markers.keys(list(text.encode()))
        store.markers.put(keys, [marker] * len(keys))
        _, computed = self.chat(self.both(), LONG.upper())
        self.assertEqual(computed, len(text))

    def test_streams_and_what_is_handed_on(self):
        fake, proxy, url = self.both()
        body = {"messages": [{"role": "user", "content": LONG}]}
        plain = json.loads(post(url, body))["content"]
        said = [json.loads(line[6:])["content"] for line in post(url, {**body, "stream": True}).split(b"\n\n") if line]
        self.assertEqual("".join(said), plain)
        self.rest(proxy)
        image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}
        for path, handed in (("/completion", {"prompt": "short"}),
                             ("/completion", {"prompt": LONG, "lora": [{"id": 0, "scale": 1.0}]}),
                             ("/completion", {"prompt": LONG, "id_slot": 0}),
                             ("/completion", {"prompt": LONG, "cache_prompt": False})):
            post(url, handed, path)
            self.assertEqual(fake.requests[-1], handed)
        self.assertIsNone(proxy.tokens_of("/v1/chat/completions", image, {}))
        self.assertEqual(proxy.counts["handed_on"], 4)
        with urllib.request.urlopen(url + "/weft", timeout=60) as answer:
            self.assertEqual(json.loads(answer.read())["requests"], 2)

    def test_many_at_once(self):
        both = self.both()
        texts = [LONG + str(i % 5) * 80 for i in range(20)]
        said = {}

        def ask(i):
            body = {"messages": [{"role": "user", "content": texts[i]}]}
            said[i] = json.loads(post(both[2], body))["content"]
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.rest(both[1])
        self.assertEqual(both[0].wrong, 0)
        for i in range(20):
            self.assertEqual(said[i], said[i % 5])

    def test_the_node_goes_away(self):
        node = Node()
        self.addCleanup(node.close)
        fabric = node.connect(timeout=1.0)
        self.addCleanup(fabric.close)
        both = self.both(fabric=fabric)
        answer, _ = self.chat(both, LONG)
        node.kill()
        self.assertGreater(self.chat(both, "x" + LONG)[1], len(LONG))
        self.assertEqual(self.chat(both, LONG)[0], answer)
        self.assertIsNotNone(both[1].why)

    def test_hostile_files(self):
        for data in (b"", b"ggsq", b"\xff" * 64, bytes(64), (0x67677371).to_bytes(4, "little") + b"\xff" * 8):
            self.assertIsNone(file_tokens(data))
        self.refused(ValueError, "no file here", self.both, before=lambda fake: setattr(fake, "model", "/none.gguf"))


if __name__ == "__main__":
    unittest.main()
