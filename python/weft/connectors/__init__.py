# SPDX-License-Identifier: Apache-2.0
"""Weft inside engines, one module each.  Each imports its engine, so import only the one that you have:

    weft.connectors.llamacpp      llama.cpp: sequences of llama-cpp-python by their prefix
    weft.connectors.transformers  Hugging Face Transformers: a Cache for model.generate()
    weft.connectors.vllm_tier   vLLM: a secondary tier below its CPU offloading
    weft.connectors.vllm        vLLM: a KV connector of its own
"""
