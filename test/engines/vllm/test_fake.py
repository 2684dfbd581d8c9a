# SPDX-License-Identifier: Apache-2.0
"""The fake has what the real vLLM has: fields, signatures, members, abstract methods.  Needs the real one."""
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import pathlib
import unittest

import vllm

FAKE = pathlib.Path(__file__).resolve().parent / "fake"
MODULES = ("vllm.v1.kv_offload.base", "vllm.v1.kv_offload.config", "vllm.v1.kv_offload.tiering.base",
           "vllm.v1.core.kv_cache_utils")


@unittest.skipIf(getattr(vllm, "WEFT_FAKE", False), "vLLM is not here to compare with")
class Fake(unittest.TestCase):
    def test_it_is_as_the_real_one(self):
        for name in MODULES:
            real, path = importlib.import_module(name), FAKE / (name.replace(".", "/") + ".py")
            spec = importlib.util.spec_from_file_location("weft_fake", path)
            fake = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(fake)
            for word, ours in vars(fake).items():
                if word.startswith("_") or getattr(ours, "__module__", None) != "weft_fake":
                    continue
                with self.subTest(module=name, name=word):
                    self.compare(ours, getattr(real, word))

    def compare(self, ours, theirs):
        if inspect.isclass(ours) and issubclass(ours, enum.Enum):
            self.assertLessEqual({each.name for each in ours}, {each.name for each in theirs})
        elif dataclasses.is_dataclass(ours):
            mine = [field.name for field in dataclasses.fields(ours) if field.init]
            self.assertLessEqual(set(mine), {field.name for field in dataclasses.fields(theirs)})
            required = [field.name for field in dataclasses.fields(theirs) if field.init and
                        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
            self.assertEqual(required, mine[:len(required)])
        elif inspect.isclass(ours):
            self.assertEqual(getattr(ours, "__abstractmethods__", None), getattr(theirs, "__abstractmethods__", None))
            for method in ("__init__", *sorted(getattr(ours, "__abstractmethods__", ()))):
                self.assertEqual(list(inspect.signature(getattr(ours, method)).parameters),
                                 list(inspect.signature(getattr(theirs, method)).parameters), method)
        else:
            self.assertEqual(list(inspect.signature(ours).parameters), list(inspect.signature(theirs).parameters))


if __name__ == "__main__":
    unittest.main()
