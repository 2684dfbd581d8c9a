# SPDX-License-Identifier: Apache-2.0
"""A whole vLLM on a CPU with WeftConnector: what is saved by one engine is loaded by the next, and the text is the same.

Right is what an engine without Weft and without prefix caching says.  Prompts whose text hangs on rounding are left out.
"""
import pathlib
import shutil
import tempfile
import unittest

import world
from node import Node
from world import BLOCK, Engine, connector, prompt


class World:
    """What all tests here share: a model, an adapter, and an engine without Weft."""
    known, logs = {}, 0

    @classmethod
    def open(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="weft-vllm-"))
        unittest.addModuleCleanup(shutil.rmtree, cls.folder, True)
        cls.model = world.make_model(cls.folder / "tiny")
        cls.adapter = ("sql", 1, world.make_adapter(cls.folder / "one", 1))
        cls.plain = cls.engine(enable_prefix_caching=False, enable_lora=True, max_lora_rank=8)
        unittest.addModuleCleanup(cls.plain.close)

    @classmethod
    def engine(cls, model=None, **settings):
        cls.logs += 1
        return Engine(model or cls.model, str(cls.folder / f"engine{cls.logs}.log"), **settings)


def setUpModule():
    World.open()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(pool="256MB")
        cls.addClassCleanup(cls.node.close)

    def weft(self, model=None, extra=None, **settings):
        made = World.engine(model, **connector(self.node.socket, **(extra or {})), **settings)
        self.addCleanup(made.close)
        return made

    def right(self, asked, count):
        """What the engine without Weft says to each of (tokens, salt, adapter)."""
        new = [each for each in dict.fromkeys((tokens, lora) for tokens, _, lora in asked) if (each, count) not in World.known]
        for each, told in zip(new, World.plain.generate([(tokens, None, lora) for tokens, lora in new], count)):
            self.assertGreater(told[2], 1e-4, "the text of this prompt hangs on rounding: take another seed")
            World.known[each, count] = told[0]
        return [World.known[(tokens, lora), count] for tokens, _, lora in asked]

    def check(self, engine, asked, cached, count=12):
        """The engine says what is right, and has not computed so many tokens of each prompt."""
        asked = [(each, None, None) if isinstance(each[0], int) else each for each in asked]
        told = engine.generate(asked, count)
        self.assertEqual([each[0] for each in told], self.right(asked, count))
        if cached is not None:
            self.assertEqual([each[1] for each in told], cached)


class Restarted(Case):
    def test_saved_by_one_loaded_by_the_next(self):
        """Also a prompt that fills its blocks exactly, one that is a block's length, and one shorter than a block."""
        asked = [prompt(200, 1), prompt(6 * BLOCK, 2), prompt(BLOCK, 3), prompt(20, 4)]
        with self.weft() as one:
            self.check(one, asked, [0, 0, 0, 0])
            self.assertEqual(one.metrics()["vllm:external_prefix_cache_hits"], 0)
        two = self.weft()
        self.check(two, asked, [6 * BLOCK, 5 * BLOCK, 0, 0])
        metrics = two.metrics()
        self.assertEqual(metrics["vllm:external_prefix_cache_hits"], 11 * BLOCK)
        self.assertEqual(metrics["vllm:prefix_cache_hits"], 0)
        # What was generated is a prefix, too: a conversation goes on.
        more = asked[0] + self.right([(asked[0], None, None)], 12)[0] + prompt(40, 5)
        self.check(two, [more], [6 * BLOCK])
        two.forget()
        self.check(two, [more], [len(more) // BLOCK * BLOCK])

    def test_what_differs_is_computed(self):
        asked, lora = prompt(200, 10), World.adapter
        with self.weft(enable_lora=True, max_lora_rank=8) as one:
            self.check(one, [(asked, None, None)], [0])
            one.forget()
            self.check(one, [(asked, "a", None)], [0])
            one.forget()
            self.check(one, [(asked, None, lora)], [0])
            one.forget()
            for _ in range(2):
                one.ask(asked, lora=lora)  # until the adapter's files have been read, its blocks are not kept
                one.forget()
            self.assertNotEqual(self.right([(asked, None, None)], 12), self.right([(asked, None, lora)], 12))
        with self.weft(enable_lora=True, max_lora_rank=8) as two:
            for salt, adapter in ((None, None), ("a", None), (None, lora)):
                with self.subTest(salt=salt, adapter=adapter):
                    self.check(two, [(asked, salt, adapter)], [6 * BLOCK])
            for salt, adapter in (("b", None), ("a", lora)):
                with self.subTest(salt=salt, adapter=adapter):
                    self.check(two, [(asked, salt, adapter)], [0])

    def test_another_engine_computes(self):
        """Other weights under the same name, another dtype, another size of blocks: nothing is found, and then its own."""
        asked = prompt(200, 20)
        with self.weft() as one:
            self.check(one, [asked], [0])
        trained = World.folder / "trained"
        shutil.copytree(World.model, trained)
        with self.weft(str(trained)) as same:
            self.check(same, [asked], [0])  # a folder is a name
        world.make_model(trained, seed=2)
        with self.weft(str(trained)) as other:
            told = other.ask(asked)
            self.assertEqual(told[1], 0)
            self.assertNotEqual(told[0], self.right([(asked, None, None)], 12)[0])
            other.forget()
            self.assertEqual(other.ask(asked), (told[0], 6 * BLOCK))
        for settings in ({"dtype": "bfloat16"}, {"block_size": 64}, {"dtype": "bfloat16", "kv_cache_dtype": "fp8"}):
            with self.subTest(**settings), self.weft(**settings) as other:
                told = other.ask(asked)
                self.assertEqual(told[1], 0)
                other.forget()
                self.assertEqual(other.ask(asked), (told[0], 6 * BLOCK))


class Busy(Case):
    def test_pieces_many_at_once_and_preempted(self):
        """A prompt takes many steps, the requests have no room beside each other, and some share their beginnings."""
        shared = prompt(100, 30)
        asked = [shared + prompt(60 + 17 * i, 31 + i) for i in range(6)] + [prompt(3 * BLOCK, 40), prompt(130, 41)]
        small = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "num_gpu_blocks_override": 26, "max_model_len": 512}
        with self.weft(**small) as one:
            self.check(one, asked, None, count=40)
            self.assertGreater(one.metrics()["vllm:num_preemptions"], 0)
        with self.weft(**small) as two:
            self.check(two, asked, None, count=40)
            self.assertGreater(two.metrics()["vllm:external_prefix_cache_hits"], 8 * BLOCK)
            two.forget()
            self.check(two, asked[::-1], None, count=40)


class NodeDies(Case):
    def test_between_lookup_and_load_and_after(self):
        """What was found and did not come is computed, and so is all else; a node that is back is used again."""
        asked = [prompt(200 + i, 50 + i) for i in range(3)]
        node, engine = self.node, self.weft(extra={"timeout": 1.0})
        self.check(engine, asked, [0, 0, 0])
        engine.forget()
        engine.kill_at_load(node.process.pid)
        self.check(engine, asked, None)
        node.process.wait()
        self.assertIn("blocks could not be loaded", engine.said())
        self.check(engine, [prompt(150, 60)], [0])
        node.start()
        for seed in range(70, 100):
            self.check(engine, [prompt(100, seed)], None)
            engine.forget()
            if engine.ask(prompt(100, seed))[1]:
                break
        else:
            self.fail("the engine did not find the node again")


if __name__ == "__main__":
    unittest.main()
