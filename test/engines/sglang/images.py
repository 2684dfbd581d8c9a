# SPDX-License-Identifier: Apache-2.0
"""Names of torchvision for SGLang's host pools, which import its image processors and need none of them here.

torchvision is built for CUDA and does not load beside a torch that is for a CPU, so this environment has none."""
import enum
import importlib.machinery
import importlib.util
import sys
import types


def stand_in():
    """After `import sglang`, so that transformers knows that there is none."""
    if importlib.util.find_spec("torchvision"):
        return
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        module = types.ModuleType(name, __doc__)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        module.InterpolationMode = enum.Enum("InterpolationMode", ["NEAREST", "BILINEAR", "BICUBIC"])
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
