# SPDX-License-Identifier: Apache-2.0
"""weft-llamacpp-proxy as a program in front of the real llama-server: run.py compiles one, LLAMA_SERVER may name one."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

from node import Case

LLAMA_SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "examples"))
SIZES = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "hidden": 96, "context": 4096}
ARGUMENTS = ("-c", "4096", "-np", "2", "-t", "1", "-tb", "1")
STORY = "Once upon a time there was a loom that wove what it was told, and nobody asked it why. "


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def make_lora(path, seed=1):
    import gguf
    import numpy as np
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 64.0)
    for layer in range(2):
        for name, out in (("attn_k", 32), ("attn_v", 32)):
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", random.standard_normal((4, 64)).astype(np.float32))
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", random.standard_normal((out, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@unittest.skipUnless(LLAMA_SERVER, "there is no llama-server on PATH; LLAMA_SERVER may name one")
class Real(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        from llamacpp_chat import make_model
        cls.folder = tempfile.mkdtemp(prefix="weft-llama-server-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.models = [os.path.join(cls.folder, f"model{seed}.gguf") for seed in (1, 2)]
        for seed, path in enumerate(cls.models, 1):
            make_model(path, seed=seed, **SIZES)
        cls.lora = os.path.join(cls.folder, "lora.gguf")
        make_lora(cls.lora)

    def setUp(self):
        super().setUp()
        self.slots = tempfile.mkdtemp(prefix="slots-", dir=self.folder)
        self.model = os.path.join(self.slots, "model.gguf")  # of this test's own content: a hash that no other has
        shutil.copy(self.models[0], self.model)
        with open(self.model, "ab") as file:
            file.write(self.id().encode())

    def start(self, words, url):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return process
            except OSError:
                time.sleep(0.05)
        return self.fail(f"{words[0]} did not come up")

    def server(self, *more, port=None, model=None):
        """(process, port)."""
        port = port or free_port()
        words = [LLAMA_SERVER, "-m", model or self.model, *ARGUMENTS, "--port", str(port), "--slot-save-path",
                 self.slots + "/", *more]
        return self.start(words, f"http://127.0.0.1:{port}/health"), port

    def proxy(self, server_port, arguments=" ".join(ARGUMENTS)):
        """Its port."""
        port = free_port()
        self.start([sys.executable, "-m", "weft.llamacpp_proxy", "--server", f"http://127.0.0.1:{server_port}",
                    "--slot-save-path", self.slots, "--server-args", arguments, "--listen", f"127.0.0.1:{port}",
                    "--socket", self.node.socket], f"http://127.0.0.1:{port}/weft")
        return port

    @staticmethod
    def post(port, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def counts(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/weft", timeout=60) as answer:
            return json.loads(answer.read())

    def settled(self, port, **wanted):
        """Saves go on after an answer: waits until the counts are these."""
        until = time.monotonic() + 60
        while True:
            counts = self.counts(port)
            if all(counts[name] == value for name, value in wanted.items()):
                return counts
            self.assertLess(time.monotonic(), until, counts)
            time.sleep(0.01)

    def chat(self, port, messages, **more):
        """(text, tokens of the prompt, how many of these were not computed)."""
        answer = json.loads(self.post(port, "/v1/chat/completions", {
            "messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(messages)],
            "max_tokens": 12, "temperature": 0, "ignore_eos": True, **more}))
        return (answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"],
                answer["timings"]["cache_n"])

    # --------------------------------------------------------------------------------- the same answers

    def test_two_conversations_and_a_restart(self):
        """llama.cpp#17107, #24004: slots outlive the server; the proxy stays, and sees that another one runs."""
        stories = [[STORY * 6], ["Another one. " + STORY * 7]]
        plain_process, plain = self.server()
        expected, turns = [], []
        for story in stories:
            first = self.chat(plain, story, cache_prompt=False)[0]
            turns.append([*story, first, "And then?"])
            expected.append((first, self.chat(plain, turns[-1], cache_prompt=False)[0]))
        plain_process.kill()
        process, port = self.server()
        proxy = self.proxy(port)
        for number, story in enumerate(stories):
            text, count, cached = self.chat(proxy, story)
            self.assertEqual((text, cached), (expected[number][0], 0))
            self.assertGreater(count, 400)
            self.settled(proxy, saved=number + 1)
        process.terminate()
        process.wait(60)
        process, port = self.server(port=port)
        for number, turn in enumerate(turns):
            text, count, cached = self.chat(proxy, turn)
            self.assertEqual(text, expected[number][1])
            self.assertGreater(cached, 400)  # the first turn and its answer
            self.assertLess(cached, count)
            counts = self.settled(proxy, saved=number + 3)
        self.assertEqual((counts["restored"], counts["refused"], counts["why"]), (2, 0, None))
        process.kill()
        process.wait()
        _, port = self.server()  # another server and another proxy, as on another day
        other = self.proxy(port)
        for number, story in enumerate(stories):
            text, count, cached = self.chat(other, story)
            self.assertEqual((text, cached), (expected[number][0], count - 1))
        self.assertEqual(self.counts(other)["restored"], 2)
        self.assertEqual(os.listdir(self.slots), ["model.gguf"])

    def test_completions_and_streams(self):
        _, port = self.server()
        proxy, other = self.proxy(port), self.proxy(self.server()[1])
        body = {"prompt": [1 + i * 7 % 500 for i in range(300)], "n_predict": 12, "temperature": 0, "ignore_eos": True}
        whole = json.loads(self.post(proxy, "/completion", body))
        self.settled(proxy, saved=1)
        lines = self.post(other, "/completion", {**body, "stream": True}).split(b"\n\n")
        said = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
        self.assertEqual("".join(each["content"] for each in said), whole["content"])
        self.assertEqual(said[-1]["timings"]["cache_n"], 299)
        self.assertEqual(self.counts(other)["restored"], 1)

    def test_many_at_once(self):
        proxy = self.proxy(self.server()[1])
        stories, said = [[f"{i} " + STORY * 3] for i in range(5)], {}

        def ask(i):
            said[i] = self.chat(proxy, stories[i % 5])[0]
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(15)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(15):
            self.assertEqual(said[i], said[i % 5])
        self.assertEqual(self.counts(proxy)["refused"], 0)

    # --------------------------------------------------------------------------------- what is a miss

    def test_another_model_or_adapter(self):
        """Also under the proxy that is there already, and under the same name of the file."""
        process, port = self.server()
        proxy, story = self.proxy(port), [STORY * 6]
        first = self.chat(proxy, story)[0]
        self.settled(proxy, saved=1)

        def again(restored, saved, *more, model=None):
            nonlocal process
            process.kill()
            process.wait()
            if model:
                shutil.copy(model, self.model)
            process, _ = self.server(*more, port=port)
            text, _, cached = self.chat(proxy, story)
            self.assertEqual(self.chat(port, story, cache_prompt=False)[0], text)
            self.assertEqual(cached > 0, restored)
            self.settled(proxy, saved=saved)
            return text

        self.assertEqual(again(True, 1), first)
        self.assertNotEqual(again(False, 2, "--lora", self.lora), first)
        again(False, 3, "--lora-scaled", self.lora + ":0.5")
        again(True, 3, "--lora", self.lora)
        make_lora(self.lora, seed=2)
        self.addCleanup(make_lora, self.lora)
        again(False, 4, "--lora", self.lora)
        self.assertNotEqual(again(False, 5, model=self.models[1]), first)
        self.assertEqual(self.counts(proxy)["refused"], 0)
        other = self.proxy(port, " ".join(ARGUMENTS) + " -ctk q8_0")
        self.chat(other, story)
        self.assertEqual(self.settled(other, saved=1)["restored"], 0)

    def test_adapters_that_change_while_it_runs(self):
        """llama-server uses a slot's KV again that other adapters made; what it keeps so must not come into Weft."""
        process, port = self.server("--lora", self.lora)
        proxy, story = self.proxy(port), [STORY * 6]
        with_lora = self.chat(proxy, story)[0]
        self.settled(proxy, saved=1)
        for where in (proxy, port):  # told through the proxy, and behind its back
            self.post(where, "/lora-adapters", [{"id": 0, "scale": 0.0 if where == proxy else 0.25}])
            text, _, cached = self.chat(proxy, story)
            self.assertEqual((text, cached), (self.chat(port, story, cache_prompt=False)[0], 0))
            self.settled(proxy, saved=2 if where == proxy else 3)
        self.post(proxy, "/lora-adapters", [{"id": 0, "scale": 1.0}])
        text, _, cached = self.chat(proxy, story)
        self.assertEqual(text, with_lora)
        self.assertGreater(cached, 400)

    def test_adapters_of_one_request(self):
        _, port = self.server("--lora", self.lora)
        proxy, story = self.proxy(port), [STORY * 6]
        expected = self.chat(port, story, cache_prompt=False)[0]
        for slot in range(2):  # into each, to be found there
            self.chat(proxy, story, lora=[{"id": 0, "scale": 0.0}], id_slot=slot)
        self.assertEqual(self.chat(proxy, story)[0], expected)
        self.settled(proxy, saved=1, handed_on=2)
        again = self.proxy(self.server("--lora", self.lora)[1])
        self.assertEqual(self.chat(again, story)[0], expected)
        self.assertEqual(self.counts(again)["restored"], 1)

    def test_a_slot_that_has_no_room(self):
        """The server refuses to restore it, and says so of the prompt; what is in Weft stays right."""
        proxy, story = self.proxy(self.server()[1]), [STORY * 6]
        expected = self.chat(proxy, story)[0]
        self.settled(proxy, saved=1)
        smaller = self.proxy(self.server("-c", "256", "-np", "1")[1])
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.chat(smaller, story)
        self.assertEqual(caught.exception.code, 400)
        self.assertEqual(self.settled(smaller, saved=0)["refused"], 1)
        self.assertEqual(self.chat(self.proxy(self.server()[1]), story)[0], expected)

    def test_what_it_does_not_start_with(self):
        _, port = self.server()
        for arguments, words in (("-c 4096 --cache-reuse 256", "--cache-reuse"), ("--context-shift", "--context-shift"),
                                 ("--control-vector=x.gguf", "--control-vector")):
            done = subprocess.run([sys.executable, "-m", "weft.llamacpp_proxy", "--server", f"http://127.0.0.1:{port}",
                                   "--slot-save-path", self.slots, f"--server-args={arguments}", "--listen", "127.0.0.1:0",
                                   "--socket", self.node.socket], capture_output=True, text=True,
                                  timeout=120, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
